"""The problems, by name. Another one is another module here and another line in PROBLEMS."""

from collections.abc import Callable
from typing import Any

from jobs.common.imports import resolve
from jobs.deep_thinking.problems.base import Problem
from jobs.deep_thinking.problems.mazes import Mazes
from jobs.deep_thinking.problems.prefix_sums import PrefixSums
from service.errors import InputError

PROBLEMS: dict[str, Callable[..., Problem]] = {"prefix_sums": PrefixSums, "mazes": Mazes}
PARTS = tuple(name for name in (*Problem.__annotations__, *vars(Problem)) if not name.startswith("_"))
"""what every problem has"""


def problem(name: str, **options: Any) -> Problem:
    """A problem by its name in PROBLEMS or by import path, with its options. InputError if it lacks a part of one."""
    build = resolve(name, PROBLEMS, "problem")
    try:
        built = build(**options)
    except TypeError as error:
        raise InputError(f"problem {name!r} refuses its options {options}: {error}") from error
    if lacking := [part for part in PARTS if not hasattr(built, part)]:
        raise InputError(f"problem {name!r} lacks {', '.join(lacking)}")
    return built
