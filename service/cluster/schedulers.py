"""Early stopping as Ray Tune does it: its ASHA, and what makes a scheduler of Tune of any early stopping."""

import math
from dataclasses import dataclass
from typing import Any

from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from service.execution.trials.early_stopping import EarlyStopping
from service.handle.rows import Row
from service.planning.plan import TrialPlan
from service.spec import Asha

ROW = "row/"  # before the names of what was logged
WORST = 1e300  # stands for a metric that is not finite: percentiles of infinities are no numbers


@dataclass(frozen=True)
class PlannedTrial:
    """As much of a Tune trial as ASHA looks at."""

    trial_id: str


class AshaByVariant:
    """One ASHA for each variant: a variant that learns slowly is not stopped because another one learns fast."""

    def __init__(self, rule: Asha, metric: str, mode: str, plans: list[TrialPlan]) -> None:
        self._metric, self._worst = metric, -WORST if mode == "max" else WORST
        self._schedulers: dict[str | None, Any] = {
            variant: ASHAScheduler(
                time_attr="step",
                metric=metric,
                mode=mode,
                grace_period=rule.grace_steps,
                max_t=rule.max_steps,
                reduction_factor=rule.reduction,
                stop_last_trials=False,  # a trial that reaches max_steps still has its evaluation before it
            )
            for variant in {plan.variant for plan in plans}
        }

    def begin(self, plan: TrialPlan) -> None:
        self._schedulers[plan.variant].on_trial_add(None, PlannedTrial(plan.id))

    def stops(self, plan: TrialPlan, row: Row) -> bool:
        verdict = self._schedulers[plan.variant].on_trial_result(None, PlannedTrial(plan.id), self._finite(row))
        return bool(verdict == TrialScheduler.STOP)

    def end(self, plan: TrialPlan, row: Row) -> None:
        self._schedulers[plan.variant].on_trial_complete(None, PlannedTrial(plan.id), self._finite(row))

    def _finite(self, row: Row) -> Row:
        """The row, with a metric that is not finite worse than any other."""
        return row if math.isfinite(row.get(self._metric, 0.0)) else {**row, self._metric: self._worst}


class TuneScheduler(FIFOScheduler):
    """First in, first out, and each result is judged by an early stopping."""

    def __init__(self, stopping: EarlyStopping, plans: list[TrialPlan]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.stopping, self.plans = stopping, plans
        self.stopped: set[str] = set()  # ids of the trials that it ended

    def _plan(self, trial: TuneTrial) -> TrialPlan:
        return self.plans[int(trial.config["plan"])]

    def on_trial_add(self, tune_controller: Any, trial: TuneTrial) -> None:
        self.stopping.begin(self._plan(trial))

    def on_trial_result(self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]) -> str:
        plan = self._plan(trial)
        if not self.stopping.stops(plan, _row(result)):
            return TrialScheduler.CONTINUE
        self.stopped.add(plan.id)
        return TrialScheduler.STOP

    def on_trial_complete(self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]) -> None:
        self.stopping.end(self._plan(trial), _row(result))


def _row(result: dict[str, Any]) -> Row:
    """What was logged of all that Tune was told, which it gives to schedulers without nesting."""
    return {name.removeprefix(ROW): value for name, value in result.items() if name.startswith(ROW)}
