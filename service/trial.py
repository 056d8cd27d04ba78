"""One trial from start to finish, the same in this process and in a worker of Ray."""

import os
import traceback

import torch

from service import catalog, record
from service.errors import AssayError, InputError
from service.plan import TrialPlan
from service.record import Failure, TrialRecord, TrialStatus
from service.run import CHECKPOINT, METRICS, Report, Row, Run, table_of
from service.store import Folder


def execute(plan: TrialPlan, folder: Folder, report: Report) -> TrialRecord:
    """Run the job's code for one trial and record how it ended.

    folder: the trial's own. An exception of the job becomes a record with status `failed`: the other trials go on.
    A stop by the scheduler or by the user passes through as a BaseException, after the rows have been written.
    """
    job = catalog.load(plan.spec.job)
    set_threads(plan.spec.resources.threads)
    run = Run(folder, plan.spec.seed, report)
    try:
        job.run(plan.spec.params, run)
        ended = _ended(plan, run, None)
    except Exception as error:
        ended = _ended(plan, run, describe(error))
    finally:
        run.flush()
    record.write(folder, "trial.json", ended)
    if ended.status == "finished":
        folder.delete(CHECKPOINT)  # the results are in place: nothing will go on from it
    return ended


def record_from_driver(
    plan: TrialPlan, folder: Folder, status: TrialStatus, rows: list[Row], seconds: float, failure: Failure | None
) -> TrialRecord:
    """Record the end of a trial that cannot do it itself: the scheduler stopped it, or its worker is gone.

    rows: all that it reported. What it had staged stays where it is; nothing will go on from its checkpoint if it
    was stopped, but a trial that lost its worker can be resumed from it.
    """
    if rows:
        folder.write_table(METRICS, table_of(rows))
    metrics = {name: value for row in rows for name, value in row.items() if name != "step"}
    ended = TrialRecord(id=plan.id, label=plan.label, status=status, seconds=seconds, metrics=metrics, failure=failure)
    record.write(folder, "trial.json", ended)
    if status == "stopped":
        folder.delete(CHECKPOINT)
    return ended


def set_threads(threads: int) -> None:
    """Fix the thread count of the numerics: float sums depend on it, and a reused worker keeps that of its past."""
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what CUDA asks for deterministic matrix products


def _ended(plan: TrialPlan, run: Run, failure: Failure | None) -> TrialRecord:
    return TrialRecord(
        id=plan.id,
        label=plan.label,
        status="failed" if failure else "finished",
        seconds=run.seconds,
        metrics=run.metrics,
        artefacts=tuple(run.artefacts.values()),
        failure=failure,
    )


def describe(error: BaseException) -> Failure:
    """An exception as a record: an AssayError speaks for itself, others are named by their type."""
    message = str(error) if isinstance(error, AssayError) else f"{type(error).__name__}: {error}"
    cause = "user_error" if isinstance(error, InputError) else "error"
    return Failure(cause=cause, message=message, traceback="".join(traceback.format_exception(error)))
