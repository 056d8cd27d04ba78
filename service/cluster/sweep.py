"""Trials on Ray Tune: placement, retries of lost workers, early stopping.

What Tune is not asked to do: keep results. Each trial writes its checkpoint, its tables and its end into its own folder
of the store, so a run can go on after its driver, its head node or the whole cluster is gone, and nothing is unpickled.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from ray import tune
from ray.tune.execution import class_cache
from ray.tune.experiment import Trial as TuneTrial

from service import catalog
from service.catalog import Placement
from service.cluster import connection, embedded
from service.cluster.relay import open_relay
from service.cluster.reserved import Reservations
from service.cluster.schedulers import TuneScheduler
from service.cluster.tasks import RayTasks, import_in_workers
from service.errors import ClusterError
from service.execution import layout, records
from service.execution.fan_out.mapping import CellProgress, Executor, InProcess
from service.execution.records import Failure, TrialRecord, TrialStatus
from service.execution.trials.schedule import Schedule
from service.execution.trials.trial import execute, record_from_driver
from service.handle.rows import Row
from service.planning.plan import TrialPlan
from service.spec import JobSpec
from service.store import open_store

FAN_OUT_BYTES = 512 << 20  # reserved for a trial that only hands out cells: about what its process is large
SAVE_SECONDS = 5.0  # that such a trial is given to write what has arrived, when the run stops


def run_trials(schedule: Schedule) -> None:
    """Run the trials until all have ended or the schedule's `stop` is set. Needs Ray."""
    spec, plans, todo, folder = schedule.spec, schedule.plans, schedule.todo, schedule.folder
    stopping = schedule.early_stopping()
    layout.tune(folder).delete()
    placement = catalog.load(spec.job).placement
    if placement == "fan_out" and not embedded.is_up():  # whose workers have imported it already
        import_in_workers(spec.job, spec.resources)
    # by several processes, at least one of the trials
    shared = any(plan.spec.resources.workers > 1 for plan in plans)
    most = spec.limits.max_concurrent
    if shared or placement == "fan_out":  # of trials that occupy nothing themselves any number would begin
        most = most or most_at_once(todo)
    scheduler = TuneScheduler(stopping, plans)
    if shared:
        from service.cluster import data_parallel  # not above: this module is imported by all workers

        relay = open_relay()
        trainable = data_parallel.trainable(plans, folder.uri, relay)
        watch = _Watch(schedule, scheduler.stopped, release=relay.close.remote)
    else:
        trainable = _trainable(plans, folder.uri, placement)
        watch = _Watch(schedule, scheduler.stopped)
    tuner = tune.Tuner(
        trainable,
        param_space={"plan": tune.grid_search([plans.index(plan) for plan in todo])},
        tune_config=tune.TuneConfig(
            scheduler=scheduler,
            max_concurrent_trials=most,
            reuse_actors=not shared,  # seconds a trial: a job rebuilds all it needs and reseeds from its key
        ),
        run_config=tune.RunConfig(
            name=layout.TUNE,
            storage_path=folder.path,
            storage_filesystem=folder.fs,
            stop=_StopWhen(watch),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # the store has the checkpoints
            failure_config=tune.FailureConfig(max_failures=spec.limits.max_failures),
            callbacks=[watch],
            verbose=0,
        ),
    )
    with _workers_in_advance():
        embedded.while_up(tuner.fit)
    layout.tune(folder).delete()
    if watch.given_up:
        raise watch.given_up


@contextmanager
def _workers_in_advance() -> Iterator[None]:
    """Trials, and their cells, in the processes that an embedded Ray has started in advance.

    Tune would give them variables of this process, which those have anyway: with variables of its own a process is
    another one, and would have to be started first.
    """
    if not embedded.is_up():
        yield
        return
    before = class_cache.DEFAULT_ENV_VARS, class_cache.ENV_VARS_TO_PROPAGATE
    class_cache.DEFAULT_ENV_VARS, class_cache.ENV_VARS_TO_PROPAGATE = {}, set()
    try:
        yield
    finally:
        class_cache.DEFAULT_ENV_VARS, class_cache.ENV_VARS_TO_PROPAGATE = before


def most_at_once(plans: list[TrialPlan]) -> int:
    """How many of the trials the cluster has room for now: more would only wait, each in a process of its own.

    On a cluster that grows, limits.max_concurrent says how many it is to grow to.
    """
    return max(1, min(connection.room(plan.spec.resources) // plan.spec.resources.workers for plan in plans))


def _trainable(plans: list[TrialPlan], run_uri: str, placement: Placement) -> Any:
    """The function that Tune calls in a worker. It carries plain data only. placement: that of the job."""

    def trial(config: dict[str, Any]) -> None:
        plan = plans[config["plan"]]

        def report(index: int, row: Row, total_steps: int | None) -> None:
            tune.report({"row": row, "index": index, "total_steps": total_steps})

        def tell(cells: CellProgress) -> None:
            tune.report({"cells": asdict(cells)})

        resources, limits = plan.spec.resources, plan.spec.limits
        executor: Executor = InProcess(tell, limits.max_failures, resources.gpus)
        if placement == "fan_out":
            reservations = Reservations(plan, run_uri)
            executor = RayTasks(resources, limits.max_failures, tell, limits.max_wait_seconds, reservations)
        # a failure of the job itself is recorded there and does not raise: Tune retries lost workers only
        execute(plan, open_store(run_uri), report, executor)

    return tune.with_resources(trial, lambda config: _placement(plans[config["plan"]].spec))


def _placement(spec: JobSpec) -> tune.PlacementGroupFactory:
    """What a trial occupies. One that fans out occupies no core, or on a single one its cells would wait for ever."""
    fan_out = catalog.load(spec.job).placement == "fan_out"
    return tune.PlacementGroupFactory([{"memory": FAN_OUT_BYTES} if fan_out else connection.amounts(spec.resources)])


class _StopWhen(tune.Stopper):
    """Stops a trial at its next report. One that maps cells has written all results right before it reports."""

    def __init__(self, watch: "_Watch") -> None:
        self.watch = watch
        self.asked_at: float | None = None

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return self.watch.stop.is_set()

    def stop_all(self) -> bool:
        if self.watch.given_up:
            return True
        if not self.watch.stop.is_set():
            return False
        self.asked_at = self.asked_at or time.monotonic()
        return not self.watch.mapping or time.monotonic() - self.asked_at > SAVE_SECONDS

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its own state aside; the event belongs to this process


class _Watch(tune.Callback):
    """Follows the trials from the driver: live progress, and the end of those that cannot write it themselves."""

    def __init__(
        self, schedule: Schedule, stopped: set[str], release: Callable[[str], object] = lambda trial: None
    ) -> None:
        """stopped: ids of the trials that the scheduler ended."""
        self.plans, self.folder = schedule.plans, schedule.folder
        self.progress, self.stop, self.stopped = schedule.progress, schedule.stop, stopped
        self.release = release  # frees what a trial whose process may be gone has reserved elsewhere
        self.rows: dict[str, list[Row]] = {}
        self.started_at: dict[str, float] = {}
        self.mapping: set[str] = set()  # trials that are in the middle of a map
        self.given_up: ClusterError | None = None
        self._idle_since: float | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def _plan(self, trial: TuneTrial) -> TrialPlan:
        return self.plans[int(trial.config["plan"])]

    def on_step_end(self, iteration: int, trials: list[TuneTrial], **info: Any) -> None:
        """Give up when no trial has found a place for too long: Ray would wait for ever."""
        waiting = [trial for trial in trials if trial.status == TuneTrial.PENDING]
        if not waiting or any(trial.status == TuneTrial.RUNNING for trial in trials):
            self._idle_since = None
            return
        self._idle_since = self._idle_since or time.monotonic()
        plan = self._plan(waiting[0])
        if time.monotonic() - self._idle_since > plan.spec.limits.max_wait_seconds:
            self.given_up = connection.no_room(
                f"trial {plan.label!r}", plan.spec.resources, plan.spec.limits.max_wait_seconds
            )

    def on_trial_start(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        plan = self._plan(trial)
        self.rows[plan.id] = []
        self.mapping.discard(plan.id)
        self.started_at[plan.id] = time.monotonic()
        self.progress.started(plan)

    def on_trial_result(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, result: dict[str, Any], **info: Any
    ) -> None:
        plan = self._plan(trial)
        if "cells" in result:
            cells = CellProgress(**result["cells"])
            going_on = cells.done + cells.failed < cells.total
            (self.mapping.add if going_on else self.mapping.discard)(plan.id)
            self.progress.mapped(plan, cells)
        if "row" in result:
            self.rows[plan.id][result["index"] :] = [result["row"]]
            self.progress.reported(plan, result["row"], result["total_steps"])

    def on_trial_complete(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        plan = self._plan(trial)
        self.mapping.discard(plan.id)
        folder = layout.trial(self.folder, plan.id)
        ended = records.read_trial(folder)
        if ended is None and plan.id in self.stopped:
            ended = self._record(plan, "stopped", None)
        elif ended is None and not self.stop.is_set() and self.given_up is None:
            sentence = f"it ended without a record: its worker sees another folder than {folder.uri}"
            ended = self._record(plan, "failed", Failure(cause="error", message=sentence))
        self.release(plan.id)
        self.progress.ended(plan, ended.status if ended else "interrupted")

    def on_trial_error(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        plan = self._plan(trial)
        self.mapping.discard(plan.id)
        failure = Failure(
            cause="worker_lost",
            message=f"its worker died, also when started again (limits.max_failures: {plan.spec.limits.max_failures})",
            traceback=str(trial.get_error() or ""),
        )
        self.release(plan.id)
        # it may have ended before its worker died
        ended = records.read_trial(layout.trial(self.folder, plan.id)) or self._record(plan, "failed", failure)
        self.progress.ended(plan, ended.status)

    def _record(self, plan: TrialPlan, status: TrialStatus, failure: Failure | None) -> TrialRecord:
        seconds = time.monotonic() - self.started_at[plan.id]
        return record_from_driver(
            plan, layout.trial(self.folder, plan.id), status, self.rows[plan.id], seconds, failure
        )
