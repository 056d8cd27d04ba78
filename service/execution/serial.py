"""The serial runner: every trial in this process, one after another, without Ray. The reference that Ray must equal."""

import threading
import time
from typing import Any

from ray.tune.schedulers import TrialScheduler

from service.cluster.schedulers import PlannedTrial, replay, scheduler_for
from service.execution import layout
from service.execution.fan_out.mapping import CellProgress, InProcess
from service.execution.progress import Progress
from service.execution.trial import execute, record_from_driver
from service.planning.plan import TrialPlan
from service.run import Row
from service.spec import JobSpec
from service.store import Folder


class TrialStoppedError(BaseException):
    """Raised inside a trial's `run.log` to end it. A BaseException, so that a job's own handlers let it pass."""


def run_trials(
    spec: JobSpec,
    plans: list[TrialPlan],
    todo: list[TrialPlan],
    folder: Folder,
    progress: Progress,
    stop: threading.Event,
) -> None:
    """Run the trials in `todo`, of all the `plans` of the run, until all have ended or `stop` is set."""
    scheduler: Any = scheduler_for(spec, plans)
    replay(scheduler, plans, todo, folder)
    for plan in todo:
        if stop.is_set():
            return
        trial = PlannedTrial(plan.id, {"plan": plans.index(plan)})
        rows: list[Row] = []
        started = time.monotonic()

        def report(
            index: int,
            row: Row,
            total_steps: int | None,
            plan: TrialPlan = plan,
            trial: PlannedTrial = trial,
            rows: list[Row] = rows,
            started: float = started,
        ) -> None:
            rows[index:] = [row]
            progress.reported(plan, row, total_steps)
            if stop.is_set():
                raise TrialStoppedError
            if scheduler.on_trial_result(None, trial, row) == TrialScheduler.STOP:
                seconds = time.monotonic() - started
                record_from_driver(plan, layout.trial(folder, plan.id), "stopped", rows, seconds, None)
                raise TrialStoppedError

        def tell(cells: CellProgress, plan: TrialPlan = plan) -> None:
            progress.mapped(plan, cells)
            if stop.is_set():
                raise TrialStoppedError

        executor = InProcess(tell, plan.spec.limits.max_failures, plan.spec.resources.gpus)
        scheduler.on_trial_add(None, trial)
        progress.started(plan)
        try:
            ended = execute(plan, folder, report, executor)
            if rows and ended.status != "failed":
                scheduler.on_trial_complete(None, trial, rows[-1])
            progress.ended(plan, ended.status)
        except TrialStoppedError:
            progress.ended(plan, "interrupted" if stop.is_set() else "stopped")
