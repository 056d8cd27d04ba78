"""Runs from start to finish: the same results in this process, on Ray, and after a kill."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from service import models, spec
from service.cli.commands import main
from service.errors import AssayError, RunLockedError, RunNotFoundError, SpecError, StoreError
from service.execution import checkpoints, history, records, runner
from service.execution.cancellation import Cancellation
from service.execution.progress import Silent
from service.execution.records import RunRecord, TrialRecord
from service.execution.runner import Execution
from service.store import Folder, open_store
from tests.processes import ended, started, wait_for
from tests.service.pace import HURRY

CORES = 4  # of the session's Ray: a trial that reserves all of them runs alone, and one process runs all trials
SWEEP = {"grid": {"seed": [1, 2, 3], "params.drift": [0.0, 0.5]}, "metric": "height"}


def walk(store: str, **fields: Any) -> spec.JobSpec:
    return spec.build({"job": "tests.service.walk", "store": store, **fields})


def folder_of(job_spec: spec.JobSpec, state: RunRecord) -> Folder:
    return open_store(job_spec.store) / "runs" / state.id


def results(folder: Folder) -> dict[str, Any]:
    """All that a run computed, without times."""
    trials = folder / "trials"
    return {
        "metrics": folder.read_table("metrics.parquet").to_pylist(),
        "ends": [(each.id, each.status, each.metrics) for each in history.trials(folder)],
        "weights": {
            name: checkpoints.decode((trials / name).read("models/walk.safetensors"))["weights"]["weight"].tolist()
            for name in trials.names()
            if (trials / name).exists("models/walk.safetensors")
        },
        "tables": folder.read_table("tables/ends.parquet").to_pylist(),
    }


@pytest.fixture(scope="module")
def serial(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    job_spec = walk(str(tmp_path_factory.mktemp("serial")), sweep=SWEEP)
    state = runner.start(job_spec, Execution(serial=True))
    assert state.status == "finished", state.failure
    return results(folder_of(job_spec, state))


def test_a_run_leaves_a_whole_folder(any_store_uri: str) -> None:
    job_spec = walk(any_store_uri, sweep=SWEEP)
    state = runner.start(job_spec, Execution(serial=True))
    folder = folder_of(job_spec, state)
    assert (state.status, state.trials, state.trials_done) == ("finished", 6, 6)
    assert {"spec.yaml", "run.json", "metrics.parquet", "manifest.json", "report.html"} <= set(folder.names())
    assert "lock.json" not in folder.names()
    manifest = folder.read_json("manifest.json")
    assert {each["kind"] for each in manifest} == {"figure", "table", "model"}
    assert all(folder.size(each["path"]) == each["bytes"] for each in manifest)
    page = folder.read("report.html").decode()
    assert "data:image/png;base64," in page and "http://" not in page.replace("http://www.w3.org", "")
    (card,) = models.list_models(open_store(any_store_uri))
    heights = {each.id: each.metrics["height"] for each in history.trials(folder)}
    assert card.metrics["height"] == max(heights.values())
    assert state.best == {"": max(heights, key=lambda id: heights[id])}


@pytest.mark.parametrize("at_once", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_ray_equals_serial(tmp_path: Path, ray_session: None, serial: dict[str, Any], at_once: int) -> None:
    job_spec = walk(str(tmp_path / "ray"), sweep=SWEEP, resources={"cpus": CORES / at_once})
    state = runner.start(job_spec, Execution())
    assert state.status == "finished", state.failure
    assert results(folder_of(job_spec, state)) == serial


# a sweep whose own Ray is lost is in tests/service/cluster/test_embedded.py
@pytest.mark.parametrize(
    "options", [["--serial"], pytest.param(["--cpus", "1"], marks=pytest.mark.slow)], ids=["serial", "own-ray"]
)
def test_kill_the_driver_and_resume(
    tmp_path: Path, serial: dict[str, Any], monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    """tests/cluster/test_fanout.py kills a driver as well, and goes on with its run on Ray."""
    witness = tmp_path / "witness"
    params = {"witness": str(witness), "pace": {"seconds_per_step": 0.1}}
    job_spec = walk(str(tmp_path / "killed"), sweep=SWEEP, params=params)
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(job_spec.tree()))
    folder = open_store(job_spec.store) / "runs" / "killed"
    words = [sys.executable, "-m", "service", "run", str(path), "--id", "killed", *options]
    with started(words, env={**os.environ, "RAY_ADDRESS": ""}, stdout=subprocess.DEVNULL) as driver:
        wait_for(lambda: len(history.trials(folder)) >= 1 and len(unfinished(folder)) >= 1, driver)
        driver.kill()
    assert history.load(folder).status == "lost"
    finished = {each.id for each in history.trials(folder)}
    assert 0 < len(finished) < 6
    starts = witness.read_text().count

    monkeypatch.setenv(HURRY, str(tmp_path))
    state = runner.resume(open_store(job_spec.store), "killed", Execution(serial=True))
    assert state.status == "finished", state.failure
    assert results(folder) == serial
    for id in finished:
        assert starts(f"trials/{id}\n") == 1, "a finished trial was repeated"


def unfinished(folder: Folder) -> list[str]:
    return [name for name in (folder / "trials").names() if (folder / "trials" / name).exists("checkpoints")]


def test_a_worker_that_dies_goes_on_from_its_checkpoint(tmp_path: Path, ray_session: None) -> None:
    params = {"witness": str(tmp_path / "witness"), "die_once_at": 5}
    job_spec = walk(str(tmp_path / "died"), params=params, seed=3)
    state = runner.start(job_spec, Execution())
    assert state.status == "finished", state.failure
    calm = walk(str(tmp_path / "calm"), seed=3)
    calm_state = runner.start(calm, Execution(serial=True))
    assert results(folder_of(job_spec, state)) == results(folder_of(calm, calm_state))
    assert (tmp_path / "witness").read_text().count("\n") == 2


def test_a_worker_that_dies_too_often(tmp_path: Path, ray_session: None) -> None:
    params = {"witness": str(tmp_path / "witness"), "die_once_at": 5}
    job_spec = walk(str(tmp_path / "died"), params=params, limits={"max_failures": 0})
    state = runner.start(job_spec, Execution())
    assert state.status == "failed"
    assert state.failure is not None and state.failure.cause == "worker_lost"
    assert [row["step"] for row in folder_of(job_spec, state).read_table("metrics.parquet").to_pylist()][-1] == 5


@pytest.mark.parametrize("how", ["serial", "ray"])
def test_some_trials_fail(store_uri: str, how: str, request: pytest.FixtureRequest) -> None:
    if how == "ray":
        request.getfixturevalue("ray_session")
    sweep = {"grid": {"params.fail_at": [None, 4]}}
    job_spec = walk(store_uri, sweep=sweep, resources={"cpus": CORES})
    state = runner.start(job_spec, Execution(serial=how == "serial"))
    assert (state.status, state.trials_done) == ("partial", 1)
    assert state.failure is not None
    assert state.failure.message == "1 of 2 trials failed, first 'fail_at=4': the walk fails at step 4"
    (failed,) = [each for each in history.trials(folder_of(job_spec, state)) if each.status == "failed"]
    assert failed.failure and "InputError" in failed.failure.traceback
    rows = folder_of(job_spec, state).read_table("metrics.parquet").to_pylist()
    assert len(rows) == 10 + 4, "rows that were logged before the failure are kept"


@pytest.mark.parametrize("how", ["serial", "ray"])
def test_threshold_scheduler_stops_the_same_trials(store_uri: str, how: str, request: pytest.FixtureRequest) -> None:
    if how == "ray":
        request.getfixturevalue("ray_session")
    rule = {"kind": "threshold", "metric": "height", "at_step": 5, "at_least": 0.0}
    sweep = {"grid": {"seed": [0, 1, 2, 3]}, "metric": "height", "scheduler": rule}
    job_spec = walk(store_uri, params={"warn_at": 3}, sweep=sweep, resources={"cpus": CORES})
    state = runner.start(job_spec, Execution(serial=how == "serial"))
    assert state.status == "finished"
    folder = folder_of(job_spec, state)
    statuses = {}
    for each in history.trials(folder):
        heights = [row["height"] for row in folder.read_table("metrics.parquet").to_pylist() if row["trial"] == each.id]
        assert each.status == ("finished" if heights[4] >= 0 else "stopped")
        assert len(heights) == (10 if heights[4] >= 0 else 5)
        assert (each.warnings, each.notes) == (("the walk warns at step 3",), ("the walk notes step 3",))
        statuses[each.id] = each.status
    assert set(statuses.values()) == {"finished", "stopped"}, "the seeds of this test show both"


@pytest.mark.parametrize("how", ["serial", pytest.param("ray", marks=pytest.mark.slow)])
def test_asha_stops_within_a_variant(store_uri: str, how: str, request: pytest.FixtureRequest) -> None:
    if how == "ray":
        request.getfixturevalue("ray_session")
    rule = {"kind": "asha", "grace_steps": 2, "max_steps": 10, "reduction": 2}
    sweep = {
        "variants": {"low": {"params.drift": -5.0}, "high": {"params.drift": 5.0}},
        "grid": {"seed": [0, 1, 2, 3]},
        "metric": "height",
        "scheduler": rule,
    }
    job_spec = walk(store_uri, sweep=sweep, resources={"cpus": 2})
    state = runner.start(job_spec, Execution(serial=how == "serial"))
    assert state.status == "finished"
    ends = history.trials(folder_of(job_spec, state))
    assert any(each.status == "stopped" for each in ends)
    for variant in ("low", "high"):
        assert any(each.status == "finished" for each in ends if variant in each.label)
    assert set(state.best) == {"low", "high"}


def test_cancel_saves_and_resume_goes_on(
    tmp_path: Path, serial: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    job_spec = walk(str(tmp_path / "cancelled"), sweep=SWEEP, params={"pace": {"seconds_per_step": 0.1}})
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(job_spec.tree()))
    folder = open_store(job_spec.store) / "runs" / "slow"
    words = [sys.executable, "-m", "service", "run", str(path), "--id", "slow", "--serial"]
    with started(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as driver:
        wait_for(lambda: len(history.trials(folder)) >= 1, driver)
        with pytest.raises(RunLockedError, match="is being worked on by process"):
            runner.resume(open_store(job_spec.store), "slow", Execution(serial=True))
        assert main(["cancel", "slow", "--store", job_spec.store]) == 0
        ended(driver, 130)
    assert history.load(folder).status == "cancelled"
    monkeypatch.setenv(HURRY, str(tmp_path))
    assert runner.resume(open_store(job_spec.store), "slow", Execution(serial=True)).status == "finished"
    assert results(folder) == serial


def test_time_limit(store_uri: str) -> None:
    job_spec = walk(store_uri, params={"pace": {"steps": 1000, "seconds_per_step": 0.05}}, limits={"max_seconds": 0.5})
    state = runner.start(job_spec, Execution(serial=True))
    assert state.status == "cancelled"
    assert state.failure is not None and state.failure.cause == "timeout"
    assert len(folder_of(job_spec, state).read_table("metrics.parquet")) > 2


def test_a_time_limit_beyond_what_a_clock_counts() -> None:
    """The thread of its timer died of it, with a traceback on standard error."""
    stop = Cancellation()
    with stop.after(1e300):
        threads = [each for each in threading.enumerate() if isinstance(each, threading.Timer)]
        time.sleep(0.1)
        assert threads and all(each.is_alive() for each in threads)
    assert not stop.event.is_set()


def test_nothing_is_written_when_the_run_cannot_begin(tmp_path: Path, ray_session: None) -> None:
    store = tmp_path / "store"
    with pytest.raises(AssayError, match="resources.gpus: a trial asks for 64; the largest node has 0"):
        runner.start(walk(str(store), resources={"gpus": 64}), Execution())
    with pytest.raises(SpecError, match="run id '../x'"):
        runner.start(walk(str(store)), Execution(serial=True), run_id="../x")
    assert not (store / "runs").exists() or not list((store / "runs").iterdir())
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(StoreError):
        runner.start(walk(str(blocked / "store")), Execution(serial=True))
    with pytest.raises(RunNotFoundError):
        runner.resume(open_store(str(store)), "absent", Execution(serial=True))


def test_no_folder_is_left_by_a_run_that_could_not_begin(store_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(folder: Folder, name: str, record: object) -> None:
        raise StoreError("the disk is full")

    monkeypatch.setattr(records, "write", full)
    with pytest.raises(StoreError, match="the disk is full"):
        runner.start(walk(store_uri), Execution(serial=True), "one")
    assert (open_store(store_uri) / "runs").names() == []


def test_a_run_that_is_resumed_with_other_code_says_so(store_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who worked on it before is not forgotten, not even by who only summarises it anew."""

    def driven_by(commit: str, command: str) -> None:
        monkeypatch.setattr(runner, "provenance", lambda: {"code": {"commit": commit}, "command": [command]})

    driven_by("one", "run")
    job_spec = walk(store_uri)
    state = runner.start(job_spec, Execution(serial=True))
    assert state.earlier == () and not state.warnings
    first = state.provenance
    driven_by("one", "resume")
    for _ in range(2):
        state = runner.resume(open_store(store_uri), state.id, Execution(serial=True))
        assert state.earlier == (first,) and not state.warnings
    second = state.provenance
    driven_by("two", "resume")
    for _ in range(2):
        state = runner.resume(open_store(store_uri), state.id, Execution(serial=True))
        assert state.earlier == (first, second)
        assert ["resumed with other code" in sentence for sentence in state.warnings] == [True]
    assert records.read_run(folder_of(job_spec, state)) == state


def test_runs_are_in_the_order_of_their_starts(store_uri: str) -> None:
    for name in ("b", "a", "c"):
        runner.start(walk(store_uri, params={"pace": {"steps": 1}}), Execution(serial=True), name)
    store = open_store(store_uri)
    runner.resume(store, "b", Execution(serial=True))
    (store / "runs" / "z").write("spec.yaml", b"")
    readable, damaged = history.all_runs(store)
    assert [each.id for each in readable] == ["b", "a", "c"] and len(damaged) == 1
    assert [history.run_folder(store, name).name for name in ("last", "last~1", "last~2")] == ["c", "a", "b"]


def test_a_run_that_ends_while_its_driver_is_watched_is_not_lost(
    store_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = runner.start(walk(store_uri), Execution(serial=True), "one")
    folder = open_store(store_uri) / "runs" / "one"
    records.write(folder, "run.json", ended.model_copy(update={"status": "running"}))
    assert history.load(folder).status == "lost"

    def alive(*folders: Folder) -> list[bool]:
        records.write(folder, "run.json", ended)
        return [False]

    monkeypatch.setattr("service.execution.lock.alive", alive)
    assert history.load(folder) == ended


def test_a_run_exists_when_it_is_told_of(store_uri: str) -> None:
    class Asking(Silent):
        status = ""

        def run_started(self, run: str, store: str, trials: int) -> None:
            self.status = history.load(history.run_folder(open_store(store), run)).status

    asking = Asking()
    runner.start(walk(store_uri), Execution(serial=True, progress=asking))
    assert asking.status == "running"


def test_trials_are_in_the_order_of_their_numbers(store_uri: str) -> None:
    folder = open_store(store_uri) / "runs" / "many"
    for name in ("1000-a", "101-a", "999-a"):
        ended = TrialRecord(id=name, label="", status="finished", seconds=0, metrics={})
        records.write(folder / "trials" / name, "trial.json", ended)
    assert [each.id for each in history.trials(folder)] == ["101-a", "999-a", "1000-a"]


def test_a_run_id_is_used_once(store_uri: str) -> None:
    runner.start(walk(store_uri), Execution(serial=True), run_id="once")
    with pytest.raises(SpecError, match="'once' is in use"):
        runner.start(walk(store_uri), Execution(serial=True), run_id="once")


def test_no_run_is_called_as_the_newest_one_is(store_uri: str) -> None:
    with pytest.raises(SpecError, match="run id 'last': .* and not 'last' alone"):
        runner.start(walk(store_uri), Execution(serial=True), run_id="last")


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (b'{"id": 3', "run.json is damaged: not JSON"),
        ({"seconds": "NaN"}, "run.json is damaged: Input should be a finite number"),
        ({"id": "another"}, "run.json is damaged: it is of the run 'another'"),
        ({"id": "../../x"}, "run.json is damaged: it is of the run '../../x'"),
    ],
)
def test_a_damaged_record_is_one_sentence(store_uri: str, damage: bytes | dict[str, str], sentence: str) -> None:
    state = runner.start(walk(store_uri), Execution(serial=True))
    folder = open_store(store_uri) / "runs" / state.id
    record = damage if isinstance(damage, bytes) else json.dumps(folder.read_json("run.json") | damage).encode()
    folder.write("run.json", record)
    with pytest.raises(StoreError) as caught:
        history.load(folder)
    found, damaged = history.all_runs(open_store(store_uri))
    assert found == [] and damaged == [f"{state.id}: {caught.value}"] and sentence in damaged[0]


@pytest.mark.parametrize("damage", [b"", b"5", b"[1]", b"{"])
def test_a_damaged_spec_is_one_sentence(store_uri: str, damage: bytes) -> None:
    store = open_store(store_uri)
    runner.start(walk(store_uri), Execution(serial=True), run_id="damaged")
    folder = store / "runs" / "damaged"
    folder.write("spec.yaml", damage)
    for use in (
        lambda: runner.resume(store, "damaged", Execution(serial=True)),
        lambda: history.begun(folder, walk(store_uri)),
        lambda: history.compare([folder, folder]),
    ):
        with pytest.raises(StoreError, match="spec.yaml is damaged: "):
            use()
