"""The catalogue: the name of a job -> its module, imported on demand.

A job is a folder of `jobs/` with a `job.py`, or any importable module of the user's own, that holds

    class Params(BaseModel)                       every field described
    def run(params: Params, run: Run) -> None     one trial
    def summarize(trials: list[Trial], run: Run) -> None      optional: the results over all trials
    def estimate(params: Params) -> dict[str, Any]            optional: what a trial costs, for `assay check`
    FAN_OUT = True                                optional: nearly all of its work is done by `run.map`

A trial of a job with the mark FAN_OUT occupies no core: each task of cells occupies the spec's `resources`, anywhere
in the cluster. Without the mark `run.map` computes the cells inside the trial, one after another.
An estimate is names and numbers or texts; seconds are names that begin so. It may measure for a second.
"""

import importlib
import importlib.util
import inspect
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import BaseModel

from service.errors import InputError, SpecError, unknown


@dataclass(frozen=True)
class Job:
    name: str
    params: type[BaseModel]
    run: Callable[[Any, Any], None]
    summarize: Callable[[Any, Any], None] | None
    estimate: Callable[[Any], dict[str, Any]] | None
    fan_out: bool
    about: str  # the module's docstring


@cache
def names() -> tuple[str, ...]:
    """The names of all built-in jobs."""
    package = importlib.import_module("jobs")
    folders = [module.name for module in pkgutil.iter_modules(package.__path__) if module.ispkg]
    return tuple(sorted(name for name in folders if importlib.util.find_spec(f"jobs.{name}.job")))


@cache
def load(name: str) -> Job:
    """Import a job. UnknownNameError with the nearest name, or one sentence that says what the module lacks."""
    own = "." in name
    if not own and name not in names():
        raise unknown("job", name, names())
    path = name if own else f"jobs.{name}.job"
    try:
        module = importlib.import_module(path)
    except ImportError as error:
        raise SpecError(f"job: cannot import {path!r}: {error}") from error
    params, run = getattr(module, "Params", None), getattr(module, "run", None)
    if not (isinstance(params, type) and issubclass(params, BaseModel) and callable(run)):
        raise InputError(f"job: module {path!r} needs a pydantic class `Params` and a function `run(params, run)`")
    summarize, fan_out = getattr(module, "summarize", None), bool(getattr(module, "FAN_OUT", False))
    estimate = getattr(module, "estimate", None)
    return Job(name, params, run, summarize, estimate, fan_out, inspect.getdoc(module) or "")
