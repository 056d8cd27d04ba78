"""Sounds that excite a feature of a network, found by gradient ascent: many features of a layer at a time."""
