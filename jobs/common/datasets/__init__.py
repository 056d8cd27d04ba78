"""Real data that the studies use: where it comes from and how it is read."""
