"""One trial: choose a panel on training cells and evaluate it on other cells."""
