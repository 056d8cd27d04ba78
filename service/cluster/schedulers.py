"""When to stop a trial early. The serial runner asks the same objects as Ray Tune does, so both decide alike."""

from dataclasses import dataclass
from typing import Any

from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from service.execution import layout
from service.planning.plan import TrialPlan
from service.run import read_rows
from service.spec import Asha, JobSpec, Threshold
from service.store import Folder


class StopBelowBound(FIFOScheduler):
    """Stop a trial whose metric has not reached its bound at the first report at or after a step."""

    def __init__(self, rule: Threshold) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.rule = rule
        self.judged: set[str] = set()

    def on_trial_result(self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]) -> str:
        rule, value = self.rule, result.get(self.rule.metric)
        if value is None or result["step"] < rule.at_step or trial.trial_id in self.judged:
            return TrialScheduler.CONTINUE
        self.judged.add(trial.trial_id)
        reached = value >= rule.at_least if rule.at_least is not None else value <= (rule.at_most or 0.0)
        return TrialScheduler.CONTINUE if reached else TrialScheduler.STOP


class ByVariant(FIFOScheduler):
    """One ASHA for each variant: a variant that learns slowly is not stopped because another one learns fast."""

    def __init__(self, rule: Asha, metric: str, mode: str, plans: list[TrialPlan]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.plans = plans
        self.schedulers = {
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

    def _of(self, trial: TuneTrial) -> ASHAScheduler:
        return self.schedulers[self.plans[trial.config["plan"]].variant]

    def on_trial_add(self, tune_controller: Any, trial: TuneTrial) -> None:
        self._of(trial).on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]) -> str:
        return str(self._of(trial).on_trial_result(tune_controller, trial, result))

    def on_trial_complete(self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]) -> None:
        self._of(trial).on_trial_complete(tune_controller, trial, result)

    def on_trial_remove(self, tune_controller: Any, trial: TuneTrial) -> None:
        self._of(trial).on_trial_remove(tune_controller, trial)


def scheduler_for(spec: JobSpec, plans: list[TrialPlan]) -> TrialScheduler:
    """The Tune scheduler that the spec asks for; first in, first out if it asks for none."""
    rule = spec.sweep.scheduler if spec.sweep else None
    if isinstance(rule, Threshold):
        return StopBelowBound(rule)
    if isinstance(rule, Asha):
        assert spec.sweep is not None and spec.sweep.metric is not None
        return ByVariant(rule, spec.sweep.metric, spec.sweep.mode, plans)
    return FIFOScheduler()  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class PlannedTrial:
    """As much of a Tune trial as a scheduler looks at, for trials that Tune does not run."""

    trial_id: str
    config: dict[str, Any]


def replay(scheduler: Any, plans: list[TrialPlan], todo: list[TrialPlan], folder: Folder) -> None:
    """Tell a new scheduler what the trials that have ended already (before a resume) had reported."""
    waiting = {plan.id for plan in todo}
    for index, plan in enumerate(plans):
        if plan.id not in waiting:
            trial = PlannedTrial(plan.id, {"plan": index})
            scheduler.on_trial_add(None, trial)
            for row in read_rows(layout.trial(folder, plan.id)):
                scheduler.on_trial_result(None, trial, row)
