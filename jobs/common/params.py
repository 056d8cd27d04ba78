"""The base of every study's parameters."""

from service.params import Section


class StudyParams(Section):
    """Strict and frozen, as every section of a spec."""
