"""Filters that look for poisons in a training set."""
