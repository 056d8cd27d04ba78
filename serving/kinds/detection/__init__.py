"""Boxes of detectors as answers, and patches that hide objects from them."""
