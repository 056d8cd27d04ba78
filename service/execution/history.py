"""Runs that are in a store: list them, find one, compare several."""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from service.errors import AssayError, RunNotFoundError, SpecError, StoreError, nearest, shown
from service.execution import layout, lock, records
from service.execution.records import RunRecord, TrialRecord
from service.planning import yaml_text
from service.spec import JobSpec
from service.store import Folder

NAMED = 3  # trials that share a warning and are named; more are counted


@dataclass(frozen=True)
class Difference:
    """One line of a comparison: a field of the specs or a metric, with its value in each run."""

    name: str
    values: tuple[Any, ...]


def run_folder(store: Folder, name: str) -> Folder:
    """The folder of a run, by its id, an unambiguous beginning or end of it, `last`, or `last~1` for the one before."""
    if counted := re.fullmatch(rf"{records.LAST}(?:~(\d{{1,6}}))?", name):
        back = int(counted[1] or 0)
        started, _ = _by_start(store)
        if back < len(started):
            return started[-1 - back][0]
        raise RunNotFoundError(f"no run {name!r} in {store.uri}: it has {len(started)}")
    known = layout.runs(store).names()
    matching = [id for id in known if id == name] or [id for id in known if id.startswith(name) or id.endswith(name)]
    if len(matching) == 1:
        return layout.run(store, matching[0])
    if matching:
        raise RunNotFoundError(f"{name!r} names {len(matching)} runs: {', '.join(matching[:5])}")
    raise RunNotFoundError(f"no run {name!r} in {store.uri}", hint=nearest(name, known) if known else "it has no runs")


def load(folder: Folder) -> RunRecord:
    """The record of a run. A run that says `running` though its driver is gone is `lost`.

    Takes seconds if the driver is on another machine: its heartbeat has to be watched.
    """
    (state,) = _judged([(folder, _read(folder))])
    return state


def _read(folder: Folder) -> RunRecord:
    if not folder.exists(layout.RUN):
        raise RunNotFoundError(f"{folder.uri} holds no run: it has no run.json")
    state = records.read_run(folder)
    if state.id != folder.name:  # a copied folder, say: whoever goes by the id would be led to another run
        raise StoreError(f"{folder.uri_of(layout.RUN)} is damaged: it is of the run {shown(state.id)}")
    return state


def _judged(runs: list[tuple[Folder, RunRecord]]) -> list[RunRecord]:
    """The records, those marked as lost that nobody works on. All of their drivers are watched at the same time.

    The record of a run that goes on, or is lost, is that of its start: its trials are counted here.
    """
    running = [folder for folder, state in runs if state.status == "running"]
    alive = dict(zip([folder.uri for folder in running], lock.alive(*running), strict=True))
    judged = []
    for folder, state in runs:
        if not alive.get(folder.uri, True):
            state = _read(folder)  # it may have ended while its driver was watched
        if state.status == "running":
            status = "running" if alive[folder.uri] else "lost"
            state = state.model_copy(update={"status": status, "trials_done": trials_done(folder)})
        judged.append(state)
    return judged


def spec_tree(folder: Folder) -> dict[str, Any]:
    """The plain values of a run's spec, every default written out."""
    if not folder.exists(layout.SPEC):
        raise RunNotFoundError(f"{folder.uri} holds no run: it has no {layout.SPEC}")
    try:
        tree = yaml_text.parse(folder.read(layout.SPEC))
    except SpecError as error:
        raise StoreError(f"{folder.uri_of(layout.SPEC)} is damaged: {error}") from error
    if not isinstance(tree, dict):
        raise StoreError(f"{folder.uri_of(layout.SPEC)} is damaged: it must be a group of fields; it is {shown(tree)}")
    return tree


def begun(folder: Folder, job_spec: JobSpec) -> bool:
    """Whether a run of this spec has begun in the folder. SpecError if it is one of another spec."""
    if not folder.exists(layout.SPEC):
        return False
    if folder.read(layout.SPEC) != yaml_text.dump(job_spec.tree()).encode():
        spec_tree(folder)  # which says so if there is none
        raise SpecError(f"run id {folder.name!r} is in use by another spec", hint="choose another --id")
    return True


def all_runs(store: Folder) -> tuple[list[RunRecord], list[str]]:
    """Every run of the store, in the order of their starts, and a sentence about each one that cannot be read."""
    started, damaged = _by_start(store)
    return _judged(started), damaged


def _by_start(store: Folder) -> tuple[list[tuple[Folder, RunRecord]], list[str]]:
    """The runs that can be read, the first to start first, and a sentence about each of the others."""
    readable, damaged = [], []
    for name in layout.runs(store).names():
        folder = layout.run(store, name)
        try:
            readable.append((folder, _read(folder)))
        except AssayError as error:
            damaged.append(f"{name}: {error}")
    return sorted(readable, key=lambda run: run[1].created), damaged


def trials(folder: Folder) -> list[TrialRecord]:
    """The trials of a run that have ended, in the order of their numbers, with which their names begin."""
    names = sorted(layout.trials(folder).names(), key=lambda name: (len(name.partition("-")[0]), name))
    ended = [records.read_trial(layout.trial(folder, name)) for name in names]
    return [each for each in ended if each is not None]


def warnings(state: RunRecord, ended: Sequence[TrialRecord]) -> list[str]:
    """What to know about the results: of the summary, then of the trials, each sentence once, with whose it is."""
    labels: dict[str, list[str]] = defaultdict(list)
    for each in ended:
        for sentence in each.warnings:
            labels[sentence].append(each.label)
    trials = {
        sentence: ", ".join(whose) if len(whose) <= NAMED else f"{len(whose)} of {len(ended)} trials"
        for sentence, whose in labels.items()
    }
    return [*state.warnings, *[f"{sentence} ({whose})" for sentence, whose in trials.items()]]


def trials_done(folder: Folder) -> int:
    """How many trials of a run have ended with a result that can be read."""
    done = 0
    for name in layout.trials(folder).names():
        try:
            ended = records.read_trial(layout.trial(folder, name))
        except StoreError:
            continue  # `assay show` tells of it
        done += ended is not None and ended.status != "failed"
    return done


def seconds_of_same(store: Folder, job_spec: JobSpec) -> float | None:
    """How long the newest finished run of exactly this spec took; None if there is none."""
    text = yaml_text.dump(job_spec.tree()).encode()
    started, _ = _by_start(store)
    for folder, state in reversed(started):
        if state.status == "finished" and folder.exists(layout.SPEC) and folder.read(layout.SPEC) == text:
            return state.seconds
    return None


def compare(folders: list[Folder]) -> tuple[list[Difference], list[Difference]]:
    """What differs between the specs, and the metrics side by side: those of the best trial of each variant.

    A metric that a run has not is None there.
    """
    specs = [dict(_flat(spec_tree(folder))) for folder in folders]
    fields = sorted({name for spec in specs for name in spec})
    differing = [Difference(name, tuple(spec.get(name) for spec in specs)) for name in fields]
    differing = [each for each in differing if any(value != each.values[0] for value in each.values)]

    tables = [_best_metrics(folder) for folder in folders]
    names = sorted({name for table in tables for name in table})
    return differing, [Difference(name, tuple(table.get(name) for table in tables)) for name in names]


def _best_metrics(folder: Folder) -> dict[str, float]:
    """`variant/metric` -> the value last logged by the variant's best trial."""
    ended = {each.id: each for each in trials(folder)}
    return {
        f"{variant}/{name}" if variant else name: value
        for variant, id in records.read_run(folder).best.items()
        if id in ended
        for name, value in ended[id].metrics.items()
    }


def _flat(value: Any, prefix: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        return [pair for name, inner in value.items() for pair in _flat(inner, f"{prefix}.{name}" if prefix else name)]
    return [(prefix, value)]
