"""The loss at the points of a grid: which points, and how it is computed fast."""
