"""A trial that several processes train together (`resources.workers` above 1), through Ray Train's TorchTrainer.

Every worker runs the job's code with a handle of the same interface; `jobs.common.training.parallel` splits batches
and adds up gradients. Only rank 0 writes and reports, and the trial's own process passes its rows on to Tune:

    Tune's scheduler <- SharedTrial <- Relay <- rank 0 <-> rank 1, ...     gloo on CPUs, NCCL between GPUs

Tune reserves nothing for such a trial but its place in the queue. Ray Train reserves all of its workers at once, so
two trials never wait for each other's halves, and none runs that the cluster has no room for. Train itself starts
nothing again: a lost worker ends the trial's attempt, and Tune begins the next from the checkpoint in the store.
"""

import threading
import time
from typing import Any

import ray
import torch
from ray import train, tune
from ray.train.torch import TorchConfig, TorchTrainer
from ray.tune.result import RESULT_DUPLICATE
from ray.util.placement_group import get_current_placement_group, placement_group, remove_placement_group
from torch import distributed

from service.cluster import connection
from service.cluster.relay import Message
from service.errors import ClusterError, RunFailedError
from service.execution import layout
from service.execution.records import describe
from service.execution.trials.trial import conclude, perform, record_from_driver
from service.handle.rows import Report, Row, nowhere
from service.planning.plan import TrialPlan
from service.run import Run
from service.store import Folder, open_store

PLACE = {"memory": 2.0**20}  # a trial's own process takes no core; Tune wants it to reserve something
POLL_SECONDS = 1.0  # how soon the trial's process notices that its workers have ended
ECHO_SECONDS = 5.0  # how long an error waits for word that another rank died, of which it may be the echo
TIDY_SECONDS = 60.0  # how long Ray Train may take to put its things away after a stop
ALONE_SECONDS = 7 * 24 * 3600  # how long one rank may work (an evaluation, a save) while the others wait for it


def trainable(plans: list[TrialPlan], run_uri: str, relay: Any) -> Any:
    """What Tune is to run."""
    shared = tune.with_parameters(SharedTrial, plans=plans, run_uri=run_uri, relay=relay)
    return tune.with_resources(shared, tune.PlacementGroupFactory([PLACE]))


class SharedRun(Run):
    """The handle of one rank. All read the same checkpoint; only rank 0 writes anything, reports and warns."""

    def __init__(self, folder: Folder, seed: int, report: Report, rank: int, store: Folder | None = None) -> None:
        super().__init__(folder, seed, report if rank == 0 else nowhere, store=store, placement="shared_batches")
        self.writes = rank == 0

    def checkpoint(self, state: dict[str, Any], phase: str = "main") -> None:
        if self.writes:
            super().checkpoint(state, phase)

    def restore(self, phase: str = "main") -> dict[str, Any] | None:
        state = super().restore(phase)
        wait_for_all()  # before rank 0 can write a newer one
        return state

    def warn(self, sentence: str) -> None:
        if self.writes:
            super().warn(sentence)

    def _keep_remarks(self) -> None:
        if self.writes:
            super()._keep_remarks()

    def _keep(self, kind: Any, path: str, data: bytes, title: str) -> None:
        if self.writes:
            super()._keep(kind, path, data, title)

    def flush(self) -> None:
        if self.writes:
            super().flush()


def wait_for_all() -> None:
    """Return when every rank has come here."""
    distributed.all_reduce(torch.zeros(()))


def work(config: dict[str, Any]) -> None:
    """What each worker of Ray Train runs: the job's code, with its rank's handle."""
    plan: TrialPlan = config["plan"]
    relay, rank = config["relay"], train.get_context().get_world_rank()
    if rank == 0:
        open_store(config["folder"]).delete(layout.REMARKS)  # of an earlier attempt, as `execute` does
        ray.get(relay.started.remote(plan.id, get_current_placement_group()))

    def report(index: int, row: Row, total_steps: int | None) -> None:
        ray.get(relay.report.remote(plan.id, (index, row, total_steps)))

    run = SharedRun(open_store(config["folder"]), plan.spec.seed, report, rank, open_store(plan.spec.store))
    try:
        perform(plan, run)
        wait_for_all()  # the trial has not ended well before all ranks have
        run.flush()
        if rank == 0:
            conclude(plan, run, None)
    except Exception as error:
        run.flush()
        ray.get(relay.failed.remote(plan.id, rank, describe(error)))
        time.sleep(ECHO_SECONDS)
        raise RunFailedError(f"rank {rank}: {error}") from None  # an error of the job's own need not be picklable


class SharedTrial(tune.Trainable):
    """One trial as Tune sees it. It lives in a process without cores of its own, beside the workers."""

    def setup(  # type: ignore[override]  # what `with_parameters` adds
        self, config: dict[str, Any], plans: list[TrialPlan], run_uri: str, relay: Any
    ) -> None:
        self.plan = plans[config["plan"]]
        self.run_folder = open_store(run_uri)
        self.folder = layout.trial(self.run_folder, self.plan.id)
        self.relay = relay
        self.rows: list[Row] = []
        self.error: Exception | None = None
        self.closing = False
        self.began = time.monotonic()
        ray.get(relay.open.remote(self.plan.id))
        self.training = threading.Thread(target=self._train, daemon=True)
        self.training.start()

    def _train(self) -> None:
        asked = self.plan.spec.resources
        try:
            self._wait_for_room()
            TorchTrainer(
                work,
                train_loop_config={"plan": self.plan, "folder": self.folder.uri, "relay": self.relay},
                torch_config=TorchConfig(
                    # tensors on the CPU are exchanged as well where most are on GPUs
                    backend="cpu:gloo,cuda:nccl" if asked.gpus else "gloo",
                    timeout_s=ALONE_SECONDS,
                ),
                scaling_config=train.ScalingConfig(
                    num_workers=asked.workers, use_gpu=asked.gpus > 0, resources_per_worker=connection.amounts(asked)
                ),
                run_config=train.RunConfig(
                    name=f"train-{self.plan.id}",
                    storage_path=layout.tune(self.run_folder).path,  # holds nothing that is needed afterwards
                    storage_filesystem=self.run_folder.fs,
                    failure_config=train.FailureConfig(max_failures=0),
                    logging_config=train.LoggingConfig(log_level="WARNING"),  # type: ignore[call-arg]  # new in V2
                ),
            ).fit()
        except Exception as error:
            self.error = error  # judged by `step`, in the thread that Tune listens to

    def _wait_for_room(self) -> None:
        """Return when there is a place for all workers. ClusterError if there is none for too long.

        Ray Train would wait for ever, and leave its reservation pending when it is ended: an autoscaler would go on
        adding nodes for nobody.
        """
        asked, limit = self.plan.spec.resources, self.plan.spec.limits.max_wait_seconds
        group = placement_group([connection.amounts(asked)] * asked.workers)
        try:
            while not group.wait(POLL_SECONDS):
                if self.closing or time.monotonic() - self.began > limit:
                    raise connection.no_room(f"trial {self.plan.label!r}", asked, limit)
        finally:
            remove_placement_group(group)

    def step(self) -> dict[str, Any]:
        """The next row that rank 0 logs, or the end of the trial."""
        message: Message | None = None
        while message is None and self.training.is_alive():
            message = ray.get(self.relay.next.remote(self.plan.id, POLL_SECONDS))
        if message is None:
            self._conclude()
            return {RESULT_DUPLICATE: True}  # Tune's own sign for an end without a result
        index, row, total_steps = message
        self.rows[index:] = [row]
        return {"row": row, "index": index, "total_steps": total_steps}

    def _conclude(self) -> None:
        """Record a failure of the job's; raise the loss of a worker, so that Tune starts the trial again."""
        if self.error is None:
            return  # rank 0 has recorded the end
        if isinstance(self.error, ClusterError):
            seconds = time.monotonic() - self.began
            record_from_driver(self.plan, self.folder, "failed", self.rows, seconds, describe(self.error))
            return
        failures = ray.get(self.relay.failures.remote(self.plan.id))
        ended = getattr(self.error, "worker_failures", {})  # by rank; other errors are those of Ray Train itself
        if not failures or any(rank not in failures for rank in ended):
            raise self.error
        seconds = time.monotonic() - self.began
        record_from_driver(self.plan, self.folder, "failed", self.rows, seconds, next(iter(failures.values())))

    def cleanup(self) -> None:
        """End the workers, wherever they are: what they have checkpointed is whole."""
        if self.training.is_alive():
            self.closing = True
            ray.get(self.relay.close.remote(self.plan.id))
            self.training.join(TIDY_SECONDS)
