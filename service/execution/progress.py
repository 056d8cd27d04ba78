"""What happens to the trials of a run, for whoever follows: a user, the log of the run, Prometheus."""

import logging
import time
from typing import TYPE_CHECKING, Protocol

from service.execution import logs
from service.execution.fan_out.mapping import CellProgress
from service.formatting import metrics_text
from service.handle.rows import Row
from service.planning.plan import TrialPlan

if TYPE_CHECKING:
    from service.cluster.metrics import RunMetrics


class Progress(Protocol):
    """Told what happens to a run and its trials. `status` is how a trial ended, or `interrupted`."""

    def run_started(self, run: str, store: str, trials: int) -> None: ...
    def started(self, plan: TrialPlan) -> None: ...
    def reported(self, plan: TrialPlan, row: Row, total_steps: int | None) -> None: ...
    def mapped(self, plan: TrialPlan, cells: CellProgress) -> None: ...
    def ended(self, plan: TrialPlan, status: str) -> None: ...


class Silent:
    """Tells nobody."""

    def run_started(self, run: str, store: str, trials: int) -> None:
        pass

    def started(self, plan: TrialPlan) -> None:
        pass

    def reported(self, plan: TrialPlan, row: Row, total_steps: int | None) -> None:
        pass

    def mapped(self, plan: TrialPlan, cells: CellProgress) -> None:
        pass

    def ended(self, plan: TrialPlan, status: str) -> None:
        pass


class LoggedProgress:
    """A progress that passes on what it is told, and logs and counts it on the way.

    metrics: None without Ray, which brings them to Prometheus.
    """

    def __init__(self, inner: Progress, run: str, job: str, metrics: "RunMetrics | None") -> None:
        self._inner, self._run, self._job, self._metrics = inner, run, job, metrics
        self._began: dict[str, float] = {}
        self._newest: dict[str, Row] = {}

    def run_started(self, run: str, store: str, trials: int) -> None:
        logs.event(f"run of job {self._job} started, {trials} trials to go", run=run)
        self._inner.run_started(run, store, trials)

    def run_ended(self, status: str, seconds: float) -> None:
        logs.event(f"run {status} after {seconds:.1f} s", run=self._run)
        if self._metrics:
            self._metrics.run_ended(status, seconds)

    def started(self, plan: TrialPlan) -> None:
        self._began[plan.id] = time.monotonic()
        logs.event(f"started: {plan.label}", run=self._run, trial=plan.id)
        if self._metrics:
            self._metrics.trial_started(plan.id)
        self._inner.started(plan)

    def reported(self, plan: TrialPlan, row: Row, total_steps: int | None) -> None:
        self._newest[plan.id] = row
        self._inner.reported(plan, row, total_steps)

    def mapped(self, plan: TrialPlan, cells: CellProgress) -> None:
        for cell, reason in cells.lost:
            logs.event(f"failed: {reason}", logging.WARNING, run=self._run, trial=plan.id, map=cells.name, cell=cell)
        if cells.done + cells.failed == cells.total:
            logs.event(str(cells), run=self._run, trial=plan.id, map=cells.name)
        if self._metrics:
            self._metrics.cells(plan.id, cells)
        self._inner.mapped(plan, cells)

    def ended(self, plan: TrialPlan, status: str) -> None:
        seconds = time.monotonic() - self._began[plan.id]
        newest = metrics_text(self._newest.get(plan.id, {}))
        logs.event(f"{status} after {seconds:.1f} s{newest and ': '}{newest}", run=self._run, trial=plan.id)
        if self._metrics:
            self._metrics.trial_ended(plan.id, status, seconds)
        self._inner.ended(plan, status)
