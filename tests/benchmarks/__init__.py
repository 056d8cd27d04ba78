"""Measurements of speed, each against a named baseline in the same run. `make bench` runs all; never asserted."""
