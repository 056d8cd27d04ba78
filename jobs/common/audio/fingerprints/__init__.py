"""Fingerprints of sounds: peaks of spectrograms, pairs of peaks, and a database of songs that finds them."""
