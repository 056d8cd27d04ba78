"""Patches that hide people from detectors of objects."""
