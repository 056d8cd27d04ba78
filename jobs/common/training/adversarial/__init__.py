"""Training for robustness, and natural training beside it: methods, their objective, the watch for collapse."""
