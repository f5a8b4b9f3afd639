"""Panel constraints: check and measure them, find the best panel that satisfies them."""
