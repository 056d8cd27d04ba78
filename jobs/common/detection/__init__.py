"""Detectors of objects behind one interface, and how well they detect."""
