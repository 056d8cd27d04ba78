"""spec.sweep -> the list of trials, in a fixed order, drawn from the spec's seed.

The list is made once, before anything is scheduled, and depends on the spec alone: a resumed run, a serial run and
a run on fifty nodes all have the same trials under the same ids.
"""

import itertools
import random
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from service.errors import SpecError
from service.provenance import derive_seed
from service.spec import MAX_TRIALS, Choice, Distribution, JobSpec, LogUniform, RandInt, Uniform


@dataclass(frozen=True)
class TrialPlan:
    """One trial to be run: its own spec (no sweep left in it) and what sets it apart."""

    id: str
    label: str
    variant: str | None
    overrides: dict[str, Any]
    spec: JobSpec


def trials(spec: JobSpec) -> list[TrialPlan]:
    """Every trial of the spec; a single one if it has no sweep. SpecError names the wrong field of a sweep."""
    if spec.sweep is None:
        return [TrialPlan("000", spec.title, None, {}, spec)]
    sweep, single = spec.sweep, spec.model_copy(update={"sweep": None})
    count = max(len(sweep.variants), 1) * sweep.samples
    for values in sweep.grid.values():
        count *= len(values)
    if count > MAX_TRIALS:
        raise SpecError(f"sweep must have at most {MAX_TRIALS:,} trials; it has {count:,}")
    _check_fields(single, spec)

    plans = []
    first: dict[tuple[int, str], TrialPlan] = {}  # by sample and resolved spec
    points = itertools.product(
        sweep.variants.items() or [(None, {})],
        itertools.product(*[[(field, value) for value in values] for field, values in sweep.grid.items()]),
        range(sweep.samples),
    )
    for index, ((variant, fixed), point, sample) in enumerate(points):
        # a draw depends on the sample alone: variants and grid points are compared on the same draws
        drawn = {field: _draw(space, spec.seed, field, sample) for field, space in sweep.random.items()}
        varied = {**dict(point), **drawn}
        overrides = {**fixed, **varied}
        words = [variant] if variant is not None else []
        words += [f"{_short(field)}={_value(value)}" for field, value in varied.items()]
        label = " ".join(words) or f"trial {index}"
        slug = re.sub(r"[^a-z0-9.]+", "-", label.lower()).strip("-.")[:48]
        resolved = single.with_overrides(overrides)
        trial = TrialPlan(f"{index:03d}-{slug}", label, variant, overrides, resolved)
        same = first.setdefault((sample, resolved.model_dump_json()), trial)
        if same is not trial:
            raise SpecError(
                f"sweep: {same.id!r} and {trial.id!r} are the same trial",
                hint="a draw replaces a value of the grid, and that one of a variant",
            )
        plans.append(trial)
    return plans


def _check_fields(single: JobSpec, spec: JobSpec) -> None:
    """Try every override by itself, so that a wrong one is reported under the name of its place in the sweep."""
    assert spec.sweep is not None
    places = [
        (f"sweep.variants.{name}", field, value)
        for name, overrides in spec.sweep.variants.items()
        for field, value in overrides.items()
    ]
    places += [("sweep.grid", field, value) for field, values in spec.sweep.grid.items() for value in values]
    places += [("sweep.random", field, _draw(space, 0, field, 0)) for field, space in spec.sweep.random.items()]
    for place, field, value in places:
        if field.split(".")[0] not in ("params", "seed", "resources"):
            raise SpecError(f"{place}: {field!r} cannot be swept", hint="params.…, resources.… and seed can")
        if place.startswith("sweep.variants"):
            continue  # the fields of a variant may only fit each other: they are tried together below
        try:
            single.with_overrides({field: value})
        except SpecError as error:
            raise SpecError(f"{place}: {error.message}", error.hint) from error
    for name, overrides in spec.sweep.variants.items():
        try:
            single.with_overrides(overrides)
        except SpecError as error:
            raise SpecError(f"sweep.variants.{name}: {error.message}", error.hint) from error


def _draw(space: Distribution, seed: int, field: str, sample: int) -> Any:
    """One value, as Ray Tune draws it. The stream is that of (seed, field, sample)."""
    stream = derive_seed(seed, "sweep", field, sample)
    generator = np.random.default_rng(stream % 2**32)
    with suppress(ValueError, OverflowError):  # bounds beyond the numbers that NumPy draws
        match space:
            case Uniform(uniform=(low, high)) if low < high:
                return float(generator.uniform(low, high))
            case LogUniform(loguniform=(low, high)) if 0 < low < high:
                return float(np.exp(generator.uniform(np.log(low), np.log(high))))
            case RandInt(randint=(first, end)) if first < end:
                return int(generator.integers(first, end))
            case Choice(choice=values):
                return random.Random(stream).choice(values)
    bounds = next(iter(space.model_dump().values()))
    raise SpecError(f"sweep.random: {field}: bounds {list(bounds)} are reversed, equal or out of range")


def _short(field: str) -> str:
    return field.rpartition(".")[2]


def _value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
