"""What the trials of a spec would cost, with those that cost the same together, and how long they would take here."""

from collections.abc import Sequence
from dataclasses import dataclass

from service import catalog
from service.planning.plan import TrialPlan
from service.run import Estimate
from service.spec import Resources


@dataclass(frozen=True)
class Cost:
    """Trials with the same parameters, and what each of them costs."""

    labels: tuple[str, ...]
    estimate: Estimate
    resources: Resources

    @property
    def core_seconds(self) -> float | None:
        """Of all of them together."""
        return None if self.estimate.core_seconds is None else len(self.labels) * self.estimate.core_seconds

    def seconds_of_one(self, slots: int) -> float:
        """How long one of them takes by itself. slots: parts that are computed at the same time."""
        parts = max(self.estimate.pieces, self.resources.workers)
        return (self.estimate.core_seconds or 0.0) / max(1, min(parts, slots))


def costs(plans: Sequence[TrialPlan]) -> list[Cost]:
    """What the job says of its trials, of those that differ in the seed alone once; nothing if it says nothing."""
    estimate = catalog.load(plans[0].spec.job).estimate
    if estimate is None:
        return []
    groups: dict[tuple[str, Resources], list[TrialPlan]] = {}
    for each in plans:
        groups.setdefault((each.spec.params.model_dump_json(), each.spec.resources), []).append(each)
    return [
        Cost(tuple(each.label for each in group), estimate(group[0].spec.params), resources)
        for (_, resources), group in groups.items()
    ]


def seconds_on(cores: float, costs: Sequence[Cost], most: int | None = None) -> float | None:
    """How long all of them take on so many cores: as long as the work of all, or as the longest; None if unknown.

    A trial, or a task of cells, occupies `resources.cpus` cores and computes on one of them, or on its part of one.
    most: trials at the same time; none: as many as fit.
    """
    if not costs or any(cost.core_seconds is None for cost in costs):
        return None
    slots = [max(1, int(min(cores, cores / cost.resources.cpus))) for cost in costs]
    together = sum((cost.core_seconds or 0.0) / slot for cost, slot in zip(costs, slots, strict=True))
    alone = [cost.seconds_of_one(slot) for cost, slot in zip(costs, slots, strict=True)]
    in_turn = sum(len(cost.labels) * seconds for cost, seconds in zip(costs, alone, strict=True))
    return max(together, *alone, in_turn / most if most else 0.0)
