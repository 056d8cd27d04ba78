"""Attacks on copyright detection: sounds that are changed until fingerprints of music no longer find their song."""
