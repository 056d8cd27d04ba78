"""Chunks of cells as Ray tasks. Ray places them, starts them again when a worker or a node is lost, and scales up."""

import importlib
import math
from collections.abc import Callable
from contextlib import suppress
from functools import reduce
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from service import catalog
from service.cluster import connection
from service.cluster.reserved import Reservations
from service.cluster.room import RoomWatch
from service.execution import devices
from service.execution.fan_out import cells, sharing
from service.execution.fan_out.cells import Outcome
from service.execution.fan_out.mapping import Capacity, CellProgress, Chunk, Pool, Work
from service.execution.records import Failure
from service.execution.trials.trial import set_numerics
from service.run import Run
from service.spec import Resources

Fields = tuple[Any, ...]  # of an Outcome, on its way: an object of a class takes Ray ten times as long
TICK_SECONDS = 1.0  # the longest wait for a result
LEAST_IN_FLIGHT = 8
IN_FLIGHT_PER_WORKER = 4


def import_in_workers(job: str, resources: Resources) -> None:
    """Let as many workers as get cells at first import the job, while a trial is still being started. Nobody waits."""
    task = import_job.options(max_retries=0, **connection.task_options(resources), **connection.as_a_trial())
    for _ in range(min(connection.room(resources), LEAST_IN_FLIGHT)):
        task.remote(job)


@ray.remote
def import_job(name: str) -> None:
    """What is wrong with it is said where it is used."""
    with suppress(Exception):
        catalog.load(name)


class RayTasks:
    """An executor for `run.map`: every chunk is a task that occupies `resources`."""

    def __init__(
        self,
        resources: Resources,
        max_failures: int,
        tell: Callable[[CellProgress], None],
        max_wait_seconds: float = math.inf,
        reservations: Reservations | None = None,
    ) -> None:
        """reservations: where `run.reserved` computes; none: only cells are computed."""
        self.resources = resources
        self.max_wait_seconds = max_wait_seconds
        self.max_failures = max_failures
        self.tell = tell
        self.reservations = reservations

    def pool(self, work: Work) -> Pool:
        return _Tasks(work, self.resources, self.max_failures, self.max_wait_seconds)

    def reserved(self, run: Run, fn: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        assert self.reservations is not None
        return self.reservations.compute(run, fn, arguments)


class _Tasks:
    def __init__(self, work: Work, resources: Resources, max_failures: int, max_wait_seconds: float) -> None:
        self.work, self.resources, self.max_failures = work, resources, max_failures
        self.room = RoomWatch(f"cells of {work.name}", resources, max_wait_seconds)
        self.shared = ray.put(work.shared)
        self.task = compute_chunk.options(
            name=f"cells of {work.name}",
            max_retries=max_failures,
            **connection.task_options(resources),
        )
        self.flying: dict[ray.ObjectRef[list[Fields]], Chunk] = {}

    def capacity(self) -> Capacity:
        workers = max(1, self.room.look())
        # more than fits: workers never wait for the driver, and an autoscaler sees the demand
        return Capacity(workers, max(LEAST_IN_FLIGHT, IN_FLIGHT_PER_WORKER * workers))

    def submit(self, chunk: Chunk) -> None:
        shared = [self.shared]  # in a list, so that a worker fetches it only if it does not have it
        ref = self.task.remote(self.work.path, chunk.cells, self.work.shared.digest, shared, self.resources)
        self.flying[ref] = chunk

    def finished(self) -> list[tuple[Chunk, list[Outcome] | Failure]]:
        ray.wait(list(self.flying), num_returns=1, timeout=TICK_SECONDS)
        ready, _ = ray.wait(list(self.flying), num_returns=len(self.flying), timeout=0)
        return [(self.flying.pop(ref), self._outcomes(ref)) for ref in ready]

    def _outcomes(self, ref: "ray.ObjectRef[list[Fields]]") -> list[Outcome] | Failure:
        try:
            return [Outcome(*fields) for fields in ray.get(ref)]
        except RayTaskError:
            raise  # not the fault of a cell: those are part of the outcomes
        except RayError as error:
            often = f"limits.max_failures: {self.max_failures}"
            message = f"its worker died ({type(error).__name__}), {self.max_failures + 1} time(s) ({often})"
            return Failure(cause="worker_lost", message=message, traceback=str(error))

    def close(self) -> None:
        for ref in self.flying:
            # by force: an exception in the middle of an import would leave the worker broken for the next task
            ray.cancel(ref, force=True)
        self.flying.clear()


_kept: tuple[str, sharing.Prepared] | None = None  # what the last chunk of this worker shared


@ray.remote
def compute_chunk(
    path: str, chunk: tuple[str, ...], digest: str, shared: list[Any], resources: Resources
) -> list[Fields]:
    """Compute the cells of a chunk in a worker."""
    global _kept
    set_numerics(resources)
    if _kept is None or _kept[0] != digest:
        _kept = None  # the old one goes before the new one comes
        _kept = digest, sharing.unpack(ray.get(shared[0]))
    module, _, qualified = path.partition(":")
    fn = reduce(getattr, qualified.split("."), importlib.import_module(module))
    with devices.reservation(resources.gpus):
        return [tuple(outcome) for outcome in cells.compute(fn, chunk, _kept[1])]  # type: ignore[arg-type]
