"""The catalogue: the name of a job -> its module, imported on demand.

A job is a folder of `jobs/` with a `job.py`, or any importable module of the user's own, that holds

    class Params(BaseModel)                       every field described
    def run(params: Params, run: Run) -> None     one trial
    def summarize(trials: list[Trial], run: Run) -> None      optional: the results over all trials
    def estimate(params: Params) -> Estimate                  optional: what a trial costs, for `assay check`
    PLACEMENT: Placement = "fan_out"              optional: how it occupies what a spec reserves; default "one_process"

`service.run` has the handle `Run`, `Trial` and `Estimate`. A job that says the wrong placement is told so: `run.map`
needs "fan_out"; there `run.device` exists inside `run.reserved` and inside cells only; several `resources.workers` need
"shared_batches". An estimate may measure for a second.
"""

import ast
import importlib
import importlib.util
import inspect
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel

from service.errors import InputError, SpecError, unknown

Placement = Literal["one_process", "shared_batches", "fan_out"]
"""How a job occupies what its spec reserves. A job says it once, as PLACEMENT in its job.py.

one_process: `run` has the spec's resources for itself. shared_batches: the same, and `resources.workers` processes may
train together. fan_out: `run` occupies nothing; each cell of `run.map` and each `run.reserved` occupies the resources.
"""
PLACEMENTS: tuple[Placement, ...] = get_args(Placement)


@dataclass(frozen=True)
class Job:
    name: str
    params: type[BaseModel]
    run: Callable[[Any, Any], None]
    summarize: Callable[[Any, Any], None] | None
    estimate: Callable[[Any], Any] | None  # a service.run.Estimate
    placement: Placement
    about: str  # the module's docstring


@cache
def names() -> tuple[str, ...]:
    """The names of all built-in jobs."""
    package = importlib.import_module("jobs")
    folders = [module.name for module in pkgutil.iter_modules(package.__path__) if module.ispkg]
    return tuple(sorted(name for name in folders if importlib.util.find_spec(f"jobs.{name}.job")))


def about(name: str) -> str:
    """What a built-in job says of itself in a line, without importing it: all of them together take seconds."""
    found = importlib.util.find_spec(f"jobs.{name}.job")
    assert found is not None and found.origin is not None
    text = ast.get_docstring(ast.parse(Path(found.origin).read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0]


def module_of(name: str) -> str:
    """The module of a job, which need not be there if it is the user's own. UnknownNameError with the nearest name."""
    if is_own(name):
        return name
    if name not in names():
        raise unknown("job", name, names())
    return f"jobs.{name}.job"


def is_own(name: str) -> bool:
    """Whether a job is a module of the user's own: its whole import path, not one from here."""
    return "." in name and not name.startswith(".")


@cache
def load(name: str) -> Job:
    """Import a job. UnknownNameError with the nearest name, or one sentence that says what the module lacks."""
    path = module_of(name)
    try:
        module = importlib.import_module(path)
    except ImportError as error:
        raise SpecError(f"job: cannot import {path!r}: {error}") from error
    params, run = getattr(module, "Params", None), getattr(module, "run", None)
    if not (isinstance(params, type) and issubclass(params, BaseModel) and callable(run)):
        raise InputError(f"job: module {path!r} needs a pydantic class `Params` and a function `run(params, run)`")
    placement = getattr(module, "PLACEMENT", PLACEMENTS[0])
    if placement not in PLACEMENTS:
        raise InputError(f"job: PLACEMENT of {path!r} must be one of {', '.join(PLACEMENTS)}; it is {placement!r}")
    summarize, estimate = getattr(module, "summarize", None), getattr(module, "estimate", None)
    return Job(name, params, run, summarize, estimate, placement, inspect.getdoc(module) or "")
