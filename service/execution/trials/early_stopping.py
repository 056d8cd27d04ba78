"""When to stop a trial early. The serial runner and Ray Tune ask the same objects, so both decide alike.

ASHA is Ray Tune's own: a spec that asks for it loads Ray, also when it runs in this process.
"""

import math
from typing import Protocol

from service.handle.rows import Row
from service.planning.plan import TrialPlan
from service.spec import Asha, JobSpec, Threshold


class EarlyStopping(Protocol):
    """Judges the rows of the trials of a run, in the order in which they come."""

    def begin(self, plan: TrialPlan) -> None:
        """A trial begins."""

    def stops(self, plan: TrialPlan, row: Row) -> bool:
        """Whether a trial that has just logged this row is to end here."""

    def end(self, plan: TrialPlan, row: Row) -> None:
        """A trial has ended by itself, with this row."""


class Never:
    """Every trial goes on to its end."""

    def begin(self, plan: TrialPlan) -> None:
        pass

    def stops(self, plan: TrialPlan, row: Row) -> bool:
        return False

    def end(self, plan: TrialPlan, row: Row) -> None:
        pass


class BelowBound(Never):
    """Stop a trial whose metric has not reached its bound at the first report at or after a step."""

    def __init__(self, rule: Threshold) -> None:
        self.rule = rule
        self.judged: set[str] = set()

    def stops(self, plan: TrialPlan, row: Row) -> bool:
        rule, value = self.rule, row.get(self.rule.metric)
        if value is None or row["step"] < rule.at_step or plan.id in self.judged:
            return False
        self.judged.add(plan.id)
        reached = value >= rule.at_least if rule.at_least is not None else value <= (rule.at_most or 0.0)
        return not (reached and math.isfinite(value))


def early_stopping(spec: JobSpec, plans: list[TrialPlan]) -> EarlyStopping:
    """What the spec asks for."""
    rule = spec.sweep.scheduler if spec.sweep else None
    if isinstance(rule, Threshold):
        return BelowBound(rule)
    if isinstance(rule, Asha):
        from service.cluster.schedulers import AshaByVariant  # not above: it loads Ray

        assert spec.sweep is not None and spec.sweep.metric is not None
        return AshaByVariant(rule, spec.sweep.metric, spec.sweep.mode, plans)
    return Never()
