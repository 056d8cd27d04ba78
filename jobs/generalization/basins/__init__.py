"""Basins around minima: radii along random rays, volumes, and local learning coefficients."""
