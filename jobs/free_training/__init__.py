"""Adversarial training for free, and the ways of training that it is measured against."""
