"""spec.sweep -> the list of trials, in a fixed order, drawn from the spec's seed.

The list is made once, before anything is scheduled, and depends on the spec alone: a resumed run, a serial run and
a run on fifty nodes all have the same trials under the same ids.
"""

import itertools
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from service import catalog
from service.errors import SpecError
from service.provenance import derive_seed
from service.spec import Choice, Distribution, JobSpec, LogUniform, RandInt, Uniform

if TYPE_CHECKING:
    from service.run import Estimate

MAX_TRIALS = 10_000


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
        raise SpecError(f"sweep: {count:,} trials; at most {MAX_TRIALS:,} are allowed")
    _check_fields(single, spec)

    plans = []
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
        plans.append(TrialPlan(f"{index:03d}-{slug}", label, variant, overrides, single.with_overrides(overrides)))
    return plans


def estimates(plans: Sequence[TrialPlan]) -> list["Estimate"]:
    """What the job says of the cost of each trial. Trials that differ in the seed alone share an estimate."""
    from service.run import Estimate  # not above: it loads torch, which those who ask a cluster do without

    known: list[tuple[Any, Estimate]] = []
    costs = []
    for each in plans:
        estimate = catalog.load(each.spec.job).estimate
        same = [cost for params, cost in known if params == each.spec.params]
        if not same:
            known.append((each.spec.params, estimate(each.spec.params) if estimate else Estimate()))
            same = [known[-1][1]]
        costs.append(same[0])
    return costs


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
    """One value, through Ray Tune's own distributions. The stream is that of (seed, field, sample)."""
    from ray import tune  # not above: it takes a second, and few sweeps draw

    stream = derive_seed(seed, "sweep", field, sample)
    match space:
        case Uniform(uniform=(low, high)) if low < high:
            domain: tune.search.sample.Domain = tune.uniform(low, high)
        case LogUniform(loguniform=(low, high)) if 0 < low < high:
            domain = tune.loguniform(low, high)
        case RandInt(randint=(first, end)) if first < end:
            domain = tune.randint(first, end)
        case Choice(choice=values):
            return random.Random(stream).choice(values)
        case _:
            bounds = next(iter(space.model_dump().values()))
            raise SpecError(f"sweep.random: {field}: bounds {list(bounds)} are reversed, equal or out of range")
    value = domain.sample(random_state=stream % 2**32)
    return int(value) if isinstance(space, RandInt) else float(value)


def _short(field: str) -> str:
    return field.rpartition(".")[2]


def _value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
