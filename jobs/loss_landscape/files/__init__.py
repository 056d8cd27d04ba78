"""Surfaces, directions and weights as files."""
