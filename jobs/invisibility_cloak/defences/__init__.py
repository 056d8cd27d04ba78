"""Detectors with a defence against patches, each a detector itself: what it gains under attack and what it costs."""
