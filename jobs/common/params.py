"""The base of every study's parameters, and what several of them have fields of."""

from typing import Annotated

from pydantic import StringConstraints

from service.params import Section

Name = Annotated[str, StringConstraints(pattern="^[a-z][a-z0-9_]{0,31}$")]
"""of the user's choice, for metrics and tables: up to 32 lower-case letters, digits and underscores"""


class StudyParams(Section):
    """Strict and frozen, as every section of a spec."""
