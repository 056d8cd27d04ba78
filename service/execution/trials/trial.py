"""One trial from start to finish, the same in this process and in a worker of Ray."""

import os

import torch

from service import catalog
from service.execution import devices, layout, records, remarks
from service.execution.fan_out.mapping import Executor
from service.execution.records import Failure, TrialRecord, TrialStatus, describe
from service.handle.rows import Report, Row, table_of
from service.planning.plan import TrialPlan
from service.run import Run
from service.spec import Resources
from service.store import Folder, open_store


def execute(plan: TrialPlan, run_folder: Folder, report: Report, executor: Executor) -> TrialRecord:
    """Run the job's code for one trial and record how it ended.

    run_folder: that of the run. executor: where the cells of `run.map` are computed.
    An exception of the job becomes a record with status `failed`: the other trials go on. A stop by the scheduler or by
    the user passes through as a BaseException, after the rows have been written. A trial that has ended, whose worker
    died before it could say so, is not run again.
    """
    if ended := records.read_trial(layout.trial(run_folder, plan.id)):
        return ended
    run = Run(
        layout.trial(run_folder, plan.id),
        plan.spec.seed,
        report,
        executor,
        open_store(plan.spec.store),
        run_folder,
        catalog.load(plan.spec.job).placement,
    )
    run.folder.delete(layout.REMARKS)  # of an earlier attempt: what is still true is restored, or said again
    failure = None
    try:
        perform(plan, run)
    except Exception as error:
        failure = describe(error)
    finally:
        run.flush()
    return conclude(plan, run, failure)


def perform(plan: TrialPlan, run: Run) -> None:
    """The job's own code for one trial."""
    job, resources = catalog.load(plan.spec.job), plan.spec.resources
    set_numerics(resources)
    place = devices.nothing_reserved() if job.placement == "fan_out" else devices.reservation(resources.gpus)
    with place, remarks.heard_by(run):
        job.run(plan.spec.params, run)


def conclude(plan: TrialPlan, run: Run, failure: Failure | None) -> TrialRecord:
    """Record the end of a trial in its folder. It is `partial` if it has an end, but not all of its cells."""
    status: TrialStatus = "failed" if failure else "finished"
    if run.failed_cells:
        lacking = "; ".join(map(str, run.failed_cells))
        if failure:
            failure = failure.model_copy(update={"message": f"{failure.message}; before that {lacking}"})
        else:
            status = "partial"
            failure = run.failed_cells[0].failure.model_copy(update={"message": lacking})
    ended = TrialRecord(
        id=plan.id,
        label=plan.label,
        status=status,
        seconds=run.seconds,
        metrics=run.metrics,
        artefacts=tuple(run.written.artefacts.values()),
        warnings=tuple(run.written.warnings),
        notes=tuple(run.written.notes),
        failure=failure,
    )
    records.write(run.folder, layout.TRIAL, ended)
    if ended.status == "finished":
        run.folder.delete(layout.CHECKPOINTS)  # the results are in place: nothing will go on from it
    return ended


def record_from_driver(
    plan: TrialPlan, folder: Folder, status: TrialStatus, rows: list[Row], seconds: float, failure: Failure | None
) -> TrialRecord:
    """Record the end of a trial that cannot do it itself: the scheduler stopped it, or its worker is gone.

    rows: all that it reported. What it had staged stays where it is; nothing will go on from its checkpoint if it
    was stopped, but a trial that lost its worker can be resumed from it.
    """
    if rows:
        folder.write_table(layout.METRICS, table_of(rows))
    metrics = {name: value for row in rows for name, value in row.items() if name != "step"}
    said = records.read_remarks(folder)
    ended = TrialRecord(
        id=plan.id,
        label=plan.label,
        status=status,
        seconds=seconds,
        metrics=metrics,
        warnings=said.warnings,
        notes=said.notes,
        failure=failure,
    )
    records.write(folder, layout.TRIAL, ended)
    if status == "stopped":
        folder.delete(layout.CHECKPOINTS)
    return ended


def set_numerics(resources: Resources) -> None:
    """Fix what float results depend on besides the spec's numbers; a reused worker keeps what its past has set."""
    torch.set_num_threads(resources.threads)
    torch.backends.cudnn.allow_tf32 = resources.tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    # as use_deterministic_algorithms(True, warn_only=True), without its two seconds of importing the compiler
    torch.set_deterministic_debug_mode("warn")
    os.environ.setdefault("TORCHINDUCTOR_DETERMINISTIC", "1")  # what it would tell the compiler
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what CUDA asks for deterministic matrix products
