"""What a trial that fans out computes besides its cells (`run.reserved`), as a Ray task that occupies the resources.

    trial's process: run.reserved(fn, …)  ->  Ray task: fn(handle, …)         waits for room as a cell does
    Tune <- trial's process               <-  Relay <- rows that the handle logs

The trial's own process occupies nothing, so any number of trials may wait: none holds what another needs. A task whose
worker is lost is started again by Ray and goes on from the checkpoints in the store.
"""

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from service.cluster import connection
from service.cluster.relay import open_relay
from service.cluster.room import RoomWatch
from service.errors import AssayError
from service.execution import devices, layout, remarks
from service.execution.fan_out.mapping import InProcess
from service.execution.records import Failure, RecordedError, describe
from service.execution.trials.trial import set_numerics
from service.handle.rows import Row
from service.planning.plan import TrialPlan
from service.run import Run, Written
from service.store import open_store

POLL_SECONDS = 1.0  # between two looks at whether there is room


@cache
def relay_here() -> Any:
    """What brings rows into this process. Opened when a trial reserves: it is one more process, and most do without."""
    return open_relay()


@dataclass(frozen=True)
class Outcome:
    """What became of the function: its result, what it wrote with its handle, and how it failed."""

    result: Any
    written: Written
    error: AssayError | Failure | None = None


@dataclass(frozen=True)
class Reservations:
    """Where a trial's reserved functions are computed. run_uri: the folder of the run."""

    plan: TrialPlan
    run_uri: str

    def compute(self, run: Run, fn: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        """fn(handle, *arguments) in a task. Raises what it raises; RecordedError if that cannot travel."""
        plan, limits, relay = self.plan, self.plan.spec.limits, relay_here()
        ray.get(relay.open.remote(plan.id))
        room = RoomWatch(f"{fn.__name__} of trial {plan.label!r}", plan.spec.resources, limits.max_wait_seconds)
        task = compute_reserved.options(
            name=f"{fn.__name__} of {plan.label}",
            max_retries=limits.max_failures,
            **connection.task_options(plan.spec.resources),
        )
        ref = task.remote(plan, self.run_uri, relay, run.written, fn, arguments)
        message = relay.next.remote(plan.id, POLL_SECONDS)
        try:
            while ref not in ray.wait([ref, message])[0]:
                room.look()
                if (row := ray.get(message)) is not None:
                    run.take(*row)
                message = relay.next.remote(plan.id, POLL_SECONDS)
            outcome = ray.get(ref)
        except RayTaskError:
            raise  # not the function's fault: its errors are part of the outcome
        except RayError as error:
            often = f"limits.max_failures: {limits.max_failures}"
            message = f"its worker died ({type(error).__name__}), {limits.max_failures + 1} time(s) ({often})"
            raise RecordedError(Failure(cause="worker_lost", message=message, traceback=str(error))) from error
        except BaseException:  # the trial is stopped, or there is no room
            ray.cancel(ref, force=True)
            raise
        run.written = outcome.written
        if outcome.error is None:
            return outcome.result
        raise outcome.error if isinstance(outcome.error, AssayError) else RecordedError(outcome.error)


@ray.remote
def compute_reserved(
    plan: TrialPlan,
    run_uri: str,
    relay: Any,
    written: Written,
    fn: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> Outcome:
    """Compute a reserved function in a worker, with a handle on the trial. written: by the trial's process so far."""

    def report(index: int, row: Row, total_steps: int | None) -> None:
        ray.get(relay.report.remote(plan.id, (index, row, total_steps)))

    resources, run_folder = plan.spec.resources, open_store(run_uri)
    set_numerics(resources)
    executor = InProcess(gpus=resources.gpus)
    run = Run(layout.trial(run_folder, plan.id), plan.spec.seed, report, executor, open_store(plan.spec.store))
    run.written = written
    try:
        with devices.reservation(resources.gpus), run.inside_reserved(), remarks.heard_by(run):
            return Outcome(fn(run, *arguments), run.written)
    except AssayError as error:
        error.add_note(traceback.format_exc())
        return Outcome(None, run.written, error)
    except Exception as error:
        return Outcome(None, run.written, describe(error))
