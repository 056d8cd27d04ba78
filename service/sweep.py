"""Trials on Ray Tune: placement, retries of lost workers, early stopping.

What Tune is not asked to do: keep results. Each trial writes its checkpoint, its tables and its end into its own folder
of the store, so a run can go on after its driver, its head node or the whole cluster is gone, and nothing is unpickled.
"""

import threading
import time
from typing import Any

from ray import tune
from ray.tune.experiment import Trial as TuneTrial

from service import record
from service.plan import TrialPlan
from service.progress import Progress
from service.record import Failure, TrialRecord, TrialStatus
from service.run import Row
from service.schedulers import replay, scheduler_for
from service.spec import JobSpec
from service.store import Folder, open_store
from service.trial import execute, record_from_driver

TUNE_FOLDER = "tune"


def run_trials(
    spec: JobSpec,
    plans: list[TrialPlan],
    todo: list[TrialPlan],
    folder: Folder,
    progress: Progress,
    stop: threading.Event,
) -> None:
    """Run the trials in `todo`, of all the `plans` of the run, until all have ended or `stop` is set. Needs Ray."""
    scheduler: Any = scheduler_for(spec, plans)
    replay(scheduler, plans, todo, folder)
    resources = {"CPU": spec.resources.cpus, "GPU": spec.resources.gpus}
    if spec.resources.memory_gb:
        resources["memory"] = spec.resources.memory_gb * 2**30
    (folder / TUNE_FOLDER).delete()
    tuner = tune.Tuner(
        tune.with_resources(_trainable(plans, folder.uri, _watched(spec)), tune.PlacementGroupFactory([resources])),
        param_space={"plan": tune.grid_search([plans.index(plan) for plan in todo])},
        tune_config=tune.TuneConfig(
            scheduler=scheduler,
            max_concurrent_trials=spec.limits.max_concurrent,
            reuse_actors=True,  # seconds a trial: a job rebuilds all it needs and reseeds from its key
        ),
        run_config=tune.RunConfig(
            name=TUNE_FOLDER,
            storage_path=folder.path,
            storage_filesystem=folder.fs,
            stop=_StopWhen(stop),
            failure_config=tune.FailureConfig(max_failures=spec.limits.max_failures),
            callbacks=[_Watch(plans, folder, progress, stop)],
            verbose=0,
        ),
    )
    tuner.fit()
    (folder / TUNE_FOLDER).delete()


def _watched(spec: JobSpec) -> list[str]:
    """The metrics that the scheduler looks at."""
    if spec.sweep is None:
        return []
    rule = spec.sweep.scheduler
    return [name for name in {spec.sweep.metric, getattr(rule, "metric", None)} if name is not None]


def _trainable(plans: list[TrialPlan], run_uri: str, watched: list[str]) -> Any:
    """The function that Tune calls in a worker. It carries plain data only."""

    def trial(config: dict[str, Any]) -> None:
        plan = plans[config["plan"]]

        def report(index: int, row: Row, total_steps: int | None) -> None:
            seen = {name: row[name] for name in watched if name in row}
            tune.report({"step": row["step"], **seen, "row": row, "index": index, "total_steps": total_steps})

        # a failure of the job itself is recorded there and does not raise: Tune retries lost workers only
        execute(plan, open_store(run_uri) / "trials" / plan.id, report)

    return trial


class _StopWhen(tune.Stopper):
    def __init__(self, stop: threading.Event) -> None:
        self.stop = stop

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return self.stop.is_set()

    def stop_all(self) -> bool:
        return self.stop.is_set()

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its own state aside; the event belongs to this process


class _Watch(tune.Callback):
    """Follows the trials from the driver: live progress, and the end of those that cannot write it themselves."""

    def __init__(self, plans: list[TrialPlan], folder: Folder, progress: Progress, stop: threading.Event) -> None:
        self.plans, self.folder, self.progress, self.stop = plans, folder, progress, stop
        self.rows: dict[str, list[Row]] = {}
        self.started_at: dict[str, float] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def _plan(self, trial: TuneTrial) -> TrialPlan:
        return self.plans[int(trial.config["plan"])]

    def on_trial_start(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        plan = self._plan(trial)
        self.rows[plan.id] = []
        self.started_at[plan.id] = time.monotonic()
        self.progress.started(plan)

    def on_trial_result(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, result: dict[str, Any], **info: Any
    ) -> None:
        if "row" in result:
            plan = self._plan(trial)
            self.rows[plan.id][result["index"] :] = [result["row"]]
            self.progress.reported(plan, result["row"], result["total_steps"])

    def on_trial_complete(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        plan = self._plan(trial)
        folder = self.folder / "trials" / plan.id
        ended = record.read_trial(folder)
        if ended is None and not self.stop.is_set():
            ended = self._record(plan, "stopped", None)
        self.progress.ended(plan, ended.status if ended else "interrupted")

    def on_trial_error(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        plan = self._plan(trial)
        failure = Failure(
            cause="worker_lost",
            message=f"its worker died, also when started again (limits.max_failures: {plan.spec.limits.max_failures})",
            traceback=str(trial.get_error() or ""),
        )
        self._record(plan, "failed", failure)
        self.progress.ended(plan, "failed")

    def _record(self, plan: TrialPlan, status: TrialStatus, failure: Failure | None) -> TrialRecord:
        seconds = time.monotonic() - self.started_at[plan.id]
        return record_from_driver(plan, self.folder / "trials" / plan.id, status, self.rows[plan.id], seconds, failure)
