"""The serial runner: every trial in this process, one after another, without Ray. The reference that Ray must equal."""

import time

from service.execution import layout
from service.execution.fan_out.mapping import CellProgress, InProcess
from service.execution.trials.schedule import Schedule
from service.execution.trials.trial import execute, record_from_driver
from service.handle.rows import Row
from service.planning.plan import TrialPlan


class TrialStoppedError(BaseException):
    """Raised inside a trial's `run.log` to end it. A BaseException, so that a job's own handlers let it pass."""


def run_trials(schedule: Schedule) -> None:
    """Run the trials until all have ended or the schedule's `stop` is set."""
    folder, progress, stop = schedule.folder, schedule.progress, schedule.stop
    stopping = schedule.early_stopping()
    for plan in schedule.todo:
        if stop.is_set():
            return
        rows: list[Row] = []
        started = time.monotonic()

        def report(
            index: int,
            row: Row,
            total_steps: int | None,
            plan: TrialPlan = plan,
            rows: list[Row] = rows,
            started: float = started,
        ) -> None:
            rows[index:] = [row]
            progress.reported(plan, row, total_steps)
            if stop.is_set():
                raise TrialStoppedError
            if stopping.stops(plan, row):
                seconds = time.monotonic() - started
                record_from_driver(plan, layout.trial(folder, plan.id), "stopped", rows, seconds, None)
                raise TrialStoppedError

        def tell(cells: CellProgress, plan: TrialPlan = plan) -> None:
            progress.mapped(plan, cells)
            if stop.is_set():
                raise TrialStoppedError

        executor = InProcess(tell, plan.spec.limits.max_failures, plan.spec.resources.gpus)
        stopping.begin(plan)
        progress.started(plan)
        try:
            ended = execute(plan, folder, report, executor)
            if rows and ended.status != "failed":
                stopping.end(plan, rows[-1])
            progress.ended(plan, ended.status)
        except TrialStoppedError:
            progress.ended(plan, "interrupted" if stop.is_set() else "stopped")
