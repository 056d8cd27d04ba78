"""The base of every study's parameters, and what several of them have fields of."""

from typing import Annotated, Any

from pydantic import AfterValidator, StringConstraints

from service.errors import FieldError
from service.params import Section


def _named_once(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(values)) < len(values):
        raise FieldError("", "name each once", list(values))
    return values


ONCE = AfterValidator(_named_once)
"""of a tuple: FieldError if a value repeats, whose results would be there twice, under one name"""

Name = Annotated[str, StringConstraints(pattern="^[a-z][a-z0-9_]{0,31}$")]
"""of the user's choice, for metrics and tables: up to 32 lower-case letters, digits and underscores"""


class StudyParams(Section):
    """Strict and frozen, as every section of a spec."""
