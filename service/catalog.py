"""The catalogue: the name of a job -> its module, imported on demand.

A job is a folder of `jobs/` with a `job.py`, or any importable module of the user's own, that holds

    class Params(BaseModel)                       every field described
    def run(params: Params, run: Run) -> None     one trial
    def summarize(trials: list[Trial], run: Run) -> None      optional: the results over all trials
"""

import importlib
import importlib.util
import inspect
import json
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from service.errors import InputError, SpecError, unknown


@dataclass(frozen=True)
class Job:
    name: str
    params: type[BaseModel]
    run: Callable[[Any, Any], None]
    summarize: Callable[[Any, Any], None] | None
    about: str  # the module's docstring


@dataclass(frozen=True)
class Parameter:
    """One field of a job's parameters, for people."""

    name: str
    type: str
    default: str
    bounds: str
    description: str


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
    return Job(name, params, run, getattr(module, "summarize", None), inspect.getdoc(module) or "")


def parameters(model: type[BaseModel], prefix: str = "params") -> Iterator[Parameter]:
    """Every field of a job's parameters, groups opened, in the order of the class."""
    for name, field in model.model_fields.items():
        dotted = f"{prefix}.{name}"
        group = field.annotation
        if isinstance(group, type) and issubclass(group, BaseModel):
            yield from parameters(group, dotted)
        else:
            yield Parameter(dotted, _type(group), _default(field), _bounds(field), field.description or "")
            for model_inside, suffix in _models_inside(group):
                yield from parameters(model_inside, dotted + suffix)


def _models_inside(annotation: Any) -> Iterator[tuple[type[BaseModel], str]]:
    for inner in getattr(annotation, "__args__", ()):
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield inner, "[]" if getattr(annotation, "__origin__", None) in (tuple, list) else ""
        else:
            yield from _models_inside(inner)


def _type(annotation: Any) -> str:
    text = (
        annotation.__name__ if isinstance(annotation, type) and not hasattr(annotation, "__args__") else str(annotation)
    )
    return text.replace("typing.", "").replace("NoneType", "None")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    default = field.get_default(call_default_factory=True)
    if isinstance(default, BaseModel):
        default = default.model_dump(mode="json")
    return json.dumps(default, default=str)


_SIGNS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤", "min_length": "at least", "max_length": "at most"}


def _bounds(field: FieldInfo) -> str:
    found = []
    for rule in field.metadata:
        for attribute, sign in _SIGNS.items():
            bound = getattr(rule, attribute, None)
            if bound is not None:
                found.append(f"{sign} {bound}" + (" items" if attribute.endswith("length") else ""))
    return ", ".join(found)
