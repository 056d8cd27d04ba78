"""Attacks on fingerprints of music: losses at the peaks, bounds, gradient steps, queries, one change for many songs."""
