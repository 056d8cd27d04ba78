"""One spec from start to finish: validate, connect, run the trials, summarise, publish, record.

Everything that can be refused is refused before the run's folder exists. From then on nothing computed is lost: each
trial's end is on disk, and `resume` does what is missing.
"""

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service import catalog, spec
from service.cluster import address
from service.errors import AssayError, RunLockedError, RunNotFoundError, SpecError
from service.execution import history, layout, logs, records, results
from service.execution.cancellation import Cancellation
from service.execution.lock import CANCELLED, RunLock
from service.execution.progress import LoggedProgress, Progress, Silent
from service.execution.records import Failure, RunRecord
from service.execution.trials import serial
from service.execution.trials.schedule import Schedule
from service.planning import plan, yaml_text
from service.planning.plan import TrialPlan
from service.provenance import provenance
from service.report import contents, rendering
from service.run import Run
from service.spec import JobSpec
from service.store import Folder, open_store

if TYPE_CHECKING:
    from service.cluster.metrics import RunMetrics


@dataclass(frozen=True)
class Execution:
    """How a run is carried out: nothing here changes its results."""

    serial: bool = False
    address: str | None = None
    cpus: int | None = None
    insecure: bool = False
    progress: Progress = Silent()
    log_file: Path | None = None  # where the output of Ray and of the jobs goes meanwhile


def new_run_id(title: str) -> str:
    """Sorts by time, says what it is, and does not repeat."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{title[:32].strip('-')}-{secrets.token_hex(2)}"


def start(job_spec: JobSpec, how: Execution, run_id: str | None = None) -> RunRecord:
    """Run a spec under a new id. Returns how it ended; raises only if it could not begin."""
    run_id = run_id or new_run_id(job_spec.title)
    records.check_id(run_id)
    if address.is_job():
        address.check_absolute(job_spec.store)
    store = open_store(job_spec.store)
    plans = _plans(job_spec, store)
    store.check()
    folder = layout.run(store, run_id)
    with _ray(plans, how):
        if not folder.create(layout.SPEC, yaml_text.dump(job_spec.tree()).encode()):
            raise SpecError(f"run id {run_id!r} is in use", hint=f"`assay resume {run_id}` goes on with it")
        try:
            return _drive(job_spec, plans, store, folder, how)
        except RunLockedError:
            raise  # another driver has resumed it already
        except AssayError:
            if not folder.exists(layout.RUN):  # it could not begin
                folder.delete()
            raise


def resume(store: Folder, run_id: str, how: Execution) -> RunRecord:
    """Go on with a run: ended trials are kept, what failed is tried again, the rest goes on from where it was."""
    folder = layout.run(store, run_id)
    if not folder.exists(layout.SPEC):
        raise RunNotFoundError(f"no run {run_id!r} in {store.uri}")
    job_spec = spec.build(history.spec_tree(folder))
    plans = _plans(job_spec, store)
    with _ray(plans, how):
        return _drive(job_spec, plans, store, folder, how)


def _plans(job_spec: JobSpec, store: Folder) -> list[TrialPlan]:
    """The trials, with the store named so that a worker finds it in whatever folder, on whatever node it runs."""
    return plan.trials(job_spec.model_copy(update={"store": store.uri}))


@contextmanager
def _ray(plans: list[TrialPlan], how: Execution) -> Iterator[None]:
    """Ray, able to hold every trial; nothing for a serial run."""
    if how.serial:
        yield
        return
    from service.cluster import connection  # not above: a serial run loads no Ray

    with connection.connect(how.address, how.cpus, how.insecure):
        for resources in {each.spec.resources for each in plans}:
            connection.check_feasible(resources)
        connection.check_store(open_store(plans[0].spec.store))
        yield


def _drive(job_spec: JobSpec, plans: list[TrialPlan], store: Folder, folder: Folder, how: Execution) -> RunRecord:
    stop = Cancellation()
    began = time.monotonic()
    run_id = folder.name
    earlier = records.read_run(folder) if folder.exists(layout.RUN) else None
    origin = provenance()
    state = RunRecord(
        id=run_id,
        job=job_spec.job,
        name=job_spec.title,
        status="running",
        created=earlier.created if earlier else _now(),
        updated=_now(),
        seconds=earlier.seconds if earlier else 0.0,
        trials=len(plans),
        trials_done=0,
        provenance=origin,
        earlier=earlier.succeeded_by(origin) if earlier else (),
    )
    progress = LoggedProgress(how.progress, run_id, job_spec.job, None if how.serial else _metrics(job_spec.job))
    with (
        RunLock(folder, on_stop=lambda reason: stop.ask("cancelled", reason)) as lock,
        stop.on_signals(CANCELLED),
        stop.after(job_spec.limits.max_seconds),
        logs.shipped(how.log_file, folder),
    ):
        records.write(folder, layout.RUN, state)
        try:
            todo = _outstanding(plans, folder)
            progress.run_started(run_id, store.uri, len(todo))
            failure = None
            try:
                if todo:
                    _run_trials(how)(Schedule(job_spec, plans, todo, folder, progress, stop.event))
            except Exception as error:
                failure = records.describe(error)  # the trials that had ended before count
            state = _finish(job_spec, plans, store, folder, state, stop.reason or failure)
        except Exception as error:
            failed = {
                "status": "failed",
                "failure": records.describe(error),
                "trials_done": history.trials_done(folder),
            }
            state = state.model_copy(update=failed)
        lock.check()
        seconds = state.seconds + time.monotonic() - began
        state = state.model_copy(update={"seconds": seconds, "updated": _now()})
        records.write(folder, layout.RUN, state)
        progress.run_ended(state.status, time.monotonic() - began)
        folder.write(layout.REPORT, rendering.render(contents.of_run(folder, state)))
    return state


def _run_trials(how: Execution) -> Callable[[Schedule], None]:
    """What runs the trials: this process, or Ray Tune."""
    if how.serial:
        return serial.run_trials
    from service.cluster import sweep

    return sweep.run_trials


def _metrics(job: str) -> "RunMetrics":
    from service.cluster.metrics import RunMetrics

    return RunMetrics(job)


def _outstanding(plans: list[TrialPlan], folder: Folder) -> list[TrialPlan]:
    """The trials still to be run. The record of one that failed, or lacks cells, is removed: another chance."""
    todo = []
    for each in plans:
        ended = records.read_trial(layout.trial(folder, each.id))
        if ended is None or ended.status in ("failed", "partial"):
            layout.trial(folder, each.id).delete(layout.TRIAL)
            todo.append(each)
    return todo


def _finish(
    job_spec: JobSpec, plans: list[TrialPlan], store: Folder, folder: Folder, state: RunRecord, ended_by: Failure | None
) -> RunRecord:
    """Summarise over the trials that ended, publish the models, list every file, and give the verdict.

    ended_by: what ended the run before all trials had their turn.
    """
    ends = {each.id: ended for each in plans if (ended := records.read_trial(layout.trial(folder, each.id)))}
    best = results.best_of_variants(job_spec, plans, ends)
    results.write_metrics(plans, folder)
    done = [each for each in plans if each.id in ends]
    failed = [ended for ended in ends.values() if ended.status == "failed"]
    state = state.model_copy(update={"trials_done": len(done) - len(failed), "best": best})
    if len(done) < len(plans):
        reason = ended_by or Failure(cause="error", message=f"{len(plans) - len(done)} trials did not end")
        cancelled = reason.cause in ("cancelled", "timeout")
        return state.model_copy(update={"status": "cancelled" if cancelled else "failed", "failure": reason})
    if len(failed) == len(plans):
        return state.model_copy(update={"status": "failed", "failure": failed[0].failure})

    summary = Summary(folder, job_spec.seed)
    if state.mixed:
        summary.warn(
            "the run was resumed with other code or packages than before: its parts need not fit together; "
            "`provenance` and `earlier` in run.json say with which"
        )
    for sentence in results.unknown_metrics(job_spec, ends):
        summary.warn(sentence)
    summarize = catalog.load(job_spec.job).summarize
    if summarize is not None:
        trials = [results.view(each, ends[each.id], folder, best) for each in done if ends[each.id].status != "failed"]
        summarize(trials, summary)
    published = results.publish(job_spec, plans, ends, store, folder, summary)
    artefacts = [*summary.written.artefacts.values(), *results.trial_artefacts(ends)]
    manifest = [artefact.model_dump() for artefact in artefacts]
    folder.write_json(layout.MANIFEST, manifest)
    verdict: dict[str, Any] = {
        "status": "finished",
        "artefacts": tuple(artefacts),
        "models": tuple(published),
        "warnings": tuple(summary.written.warnings),
    }
    if failed:
        first = failed[0]
        sentence = f"{len(failed)} of {len(plans)} trials failed, first {first.label!r}: {results.message(first)}"
        cause = first.failure.cause if first.failure else "error"
        verdict |= {"status": "partial", "failure": Failure(cause=cause, message=sentence)}
    elif lacking := [ended for ended in ends.values() if ended.status == "partial"]:
        first = lacking[0]
        sentence = results.message(first)
        if len(plans) > 1:
            sentence = f"{len(lacking)} of {len(plans)} trials lack cells, first {first.label!r}: {sentence}"
        cause = first.failure.cause if first.failure else "error"
        verdict |= {"status": "partial", "failure": Failure(cause=cause, message=sentence)}
    return state.model_copy(update=verdict)


class Summary(Run):
    """The handle of `summarize`, on the folder of the whole run. What it says goes into run.json alone."""

    def _keep_remarks(self) -> None:
        pass


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
