"""Neural networks of the deep selectors: gates, networks, losses and training loops."""
