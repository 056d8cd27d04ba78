"""Stacked U-Nets for the segmentation of images, and the networks that they are measured against."""
