"""The fan-out: the same results however it is computed, nothing computed twice, and what goes wrong with cells."""

import dataclasses
import json
import math
import os
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from service import spec
from service.cluster.tasks import RayTasks
from service.errors import InputError, StoreError
from service.execution import history, runner
from service.execution.fan_out import cells, mapping
from service.execution.fan_out.cells import CellStore, Outcome
from service.execution.fan_out.mapping import CellProgress, InProcess, Pace
from service.execution.layout import CANCEL
from service.execution.records import RunRecord
from service.execution.runner import Execution
from service.run import Run
from service.spec import Resources
from service.store import Folder, open_store
from tests.processes import gone, running, started, titles, wait_for
from tests.service import grid
from tests.service.execution.fan_out.handles import handle, identical, nowhere
from tests.service.pace import HURRY


def shared(**misbehaviour: Any) -> dict[str, Any]:
    weights = torch.arange(500, dtype=torch.float32) / 500
    return {"weights": weights, **grid.Params(**misbehaviour).model_dump()}


def points(count: int) -> list[dict[str, int]]:
    return [{"index": index, "seed": 1000 + index} for index in range(count)]


def computed(folder: Path, by: int | None = None) -> Counter[int]:
    """How often each cell has been computed, by any process or by that of this id."""
    path = folder / "computed"
    lines = path.read_text().splitlines() if path.exists() else []
    cells = [tuple(map(int, line.split())) for line in lines]
    return Counter(index for index, process in cells if by in (None, process))


# ---- the same results ---------------------------------------------------------------------------------------------


@pytest.fixture
def reference() -> list[Any]:
    """The bare loop."""
    given = shared()
    return [grid.value(cell, given) for cell in points(60)]


def test_in_this_process_as_the_bare_loop(tmp_path: Path, reference: list[Any]) -> None:
    assert identical(handle(tmp_path).map(grid.value, points(60), shared()), reference)


@pytest.mark.parametrize("cpus", [4, 1])  # of the 4 of the session's Ray: one task at a time, and four
def test_ray_as_the_bare_loop(tmp_path: Path, ray_session: None, reference: list[Any], cpus: float) -> None:
    run = handle(tmp_path, RayTasks(Resources(cpus=cpus), 2, nowhere))
    assert identical(run.map(grid.value, points(60), shared()), reference)


@pytest.mark.parametrize("seconds", [1e-9, 0.01, 100.0])
def test_any_size_of_chunks(
    tmp_path: Path, reference: list[Any], seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapping, "CHUNK_SECONDS", seconds)
    assert identical(handle(tmp_path).map(grid.value, points(60), shared()), reference)


def test_no_cells_equal_cells_and_plain_results(tmp_path: Path) -> None:
    run = handle(tmp_path)
    assert run.map(grid.value, [], shared()) == []
    assert run.map(plain, [], shared()) == []
    values = [[], None, True, 1, 1.0, "1", -0.0, {"b": [1, 2], "a": {}}]
    found = run.map(plain, [*values, *values], str(tmp_path))
    assert identical(found, [*values, *values])
    assert len((tmp_path / "plain").read_text().splitlines()) == len(values), "equal cells are computed once"
    assert identical(run.map(plain, [(1, (2,))], str(tmp_path)), [[1, [2]]]), "a tuple is a list in JSON"


def plain(cell: Any, folder: str) -> Any:
    with open(Path(folder) / "plain", "a") as file:
        file.write(f"{cell}\n")
    return cell


def test_results_of_every_kind(tmp_path: Path) -> None:
    first, second = handle(tmp_path).map(kinds, [0], name="once")[0], handle(tmp_path).map(kinds, [0], name="once")[0]
    expected = kinds(0, None)
    for found in (first, second):  # computed, and read back
        assert math.isnan(found["nan"]) and found["inf"] == -math.inf
        assert found["scalar"] == 0.5 and type(found["scalar"]) is float
        for name in ("backwards", "frozen", "empty", "bfloat"):
            assert found[name].dtype == expected[name].dtype and found[name].shape == expected[name].shape
            assert found[name].tolist() == expected[name].tolist()


def kinds(cell: int, _: None) -> Any:
    frozen = np.arange(4.0)
    frozen.flags.writeable = False
    return {
        "nan": math.nan,
        "inf": -math.inf,
        "scalar": np.float32(0.5),
        "backwards": np.arange(5)[::-1],
        "frozen": frozen,
        "empty": np.zeros((0, 3), np.float32),
        "bfloat": torch.tensor(1.5, dtype=torch.bfloat16),
    }


# ---- chunks -------------------------------------------------------------------------------------------------------


@settings(max_examples=200)
@given(st.integers(1, 20_000), st.integers(1, 300), st.floats(0, 1e4), st.integers(0, 1 << 28))
def test_chunks(waiting: int, workers: int, seconds: float, size: int) -> None:
    pace = Pace()
    assert pace.chunk_size(waiting, workers) == 1, "nothing is known yet"
    pace.learn([Outcome(seconds, bytes(min(size, 10)))])
    pace.bytes = size
    sizes = []
    while waiting:
        sizes.append(pace.chunk_size(waiting, workers))
        assert 1 <= sizes[-1] <= waiting
        if sizes[-1] > 1:
            assert sizes[-1] * seconds <= mapping.CHUNK_SECONDS * 1.001 and sizes[-1] * size <= mapping.CHUNK_BYTES
            short = sizes[-1] * seconds <= mapping.LEAST_SECONDS * 1.001
            assert short or waiting / sizes[-1] >= mapping.CHUNKS_PER_WORKER * workers
        waiting -= sizes[-1]
    assert sizes == sorted(sizes, reverse=True), "the last ones are the smallest"


def grid_spec(store: Path, **fields: Any) -> spec.JobSpec:
    return spec.build({"job": "tests.service.grid", "store": str(store), **fields})


def trial_folder(job_spec: spec.JobSpec, state: RunRecord) -> Folder:
    folder = open_store(job_spec.store) / "runs" / state.id / "trials"
    return folder / folder.names()[0]


def persisted(folder: Path) -> set[int]:
    """The cells with a result on disk, below a folder."""
    rows = [
        row for file in folder.rglob("cells/**/*.parquet") for row in store_of(file).read_table(file.name).to_pylist()
    ]
    return {json.loads(row["cell"])["index"] for row in rows if row["result"] is not None}


def store_of(file: Path) -> Folder:
    return open_store(str(file.parent))


# ---- cells that fail ----------------------------------------------------------------------------------------------


def test_failing_cells_make_the_run_partial_and_are_tried_again(tmp_path: Path) -> None:
    params = {"cells": 30, "folder": str(tmp_path), "fail": [11, 4]}
    job_spec = grid_spec(tmp_path / "store", params=params)
    state = runner.start(job_spec, Execution(serial=True))
    assert state.status == "partial" and state.failure is not None
    sentence = state.failure.message
    assert sentence.startswith('2 of 30 cells of grid failed, first {"index":4,"seed":')
    assert sentence.endswith("ArithmeticError: cell 4 does not converge")
    assert computed(tmp_path) == Counter(range(30)) + Counter([4, 11]), "once more, each alone"
    (trial,) = history.trials(open_store(job_spec.store) / "runs" / state.id)
    assert trial.status == "partial" and trial.metrics["cells"] == 28
    assert trial.failure is not None and "in value" in trial.failure.traceback
    report = (open_store(job_spec.store) / "runs" / state.id).read("report.html").decode()
    assert "2 of 30 cells of grid failed" in report

    (tmp_path / "mended").touch()
    state = runner.resume(open_store(job_spec.store), state.id, Execution(serial=True))
    assert state.status == "finished" and state.failure is None
    assert computed(tmp_path) == Counter(range(30)) + Counter([4, 11, 4, 11]), "and only these"
    assert len(trial_folder(job_spec, state).read_table("tables/losses.parquet")) == 30


def test_no_second_try_without_max_failures(tmp_path: Path) -> None:
    run = handle(tmp_path / "run", InProcess(max_failures=0))
    run.map(grid.value, points(9), shared(folder=str(tmp_path), fail=(3,)))
    assert computed(tmp_path) == Counter(range(9)) and len(run.failed_cells) == 1


@pytest.mark.parametrize("how", ["serial", "ray"])
def test_a_cell_that_refuses_ends_the_map(tmp_path: Path, how: str, request: pytest.FixtureRequest) -> None:
    executor = None
    if how == "ray":
        request.getfixturevalue("ray_session")
        executor = RayTasks(Resources(cpus=4), 2, nowhere)
    given = shared(folder=str(tmp_path), refuse=8, seconds=0.01)
    with pytest.raises(InputError, match="the grid is upside down"):
        handle(tmp_path / "run", executor).map(grid.value, points(500), given)
    assert sum(computed(tmp_path).values()) < 500
    assert persisted(tmp_path / "run") >= set(range(8)) if how == "serial" else persisted(tmp_path / "run")


def test_what_cannot_be_fanned_out(tmp_path: Path) -> None:
    run = handle(tmp_path)
    with pytest.raises(InputError, match=r"the result of cell .* cannot be kept: result.stream: a Generator"):
        run.map(grid.value, points(3), shared(unserialisable=True))
    with pytest.raises(InputError, match="is not a function of a module"):
        run.map(lambda cell, shared: cell, [1])
    with pytest.raises(InputError, match="cell 1 is not plain JSON: .*int64"):
        run.map(plain, [1, np.int64(2)], str(tmp_path))
    with pytest.raises(InputError, match="cell 0 is not plain JSON"):
        run.map(plain, [{1, 2}], str(tmp_path))
    with pytest.raises(InputError, match="`shared` cannot be sent to workers: .*lock"):
        run.map(plain, [1], {"lock": threading.Lock()})
    with pytest.raises(InputError, match=r"the name '\.\./x'"):
        run.map(plain, [1], str(tmp_path), name="../x")
    assert not (tmp_path / "plain").exists()


def test_a_cell_may_be_a_number_that_json_lacks(tmp_path: Path) -> None:
    results = handle(tmp_path / "run").map(plain, [math.nan, "NaN", {"a": -math.inf}], str(tmp_path))
    assert repr(results) == "[nan, 'NaN', {'a': -inf}]"


def test_a_worker_that_dies(tmp_path: Path, ray_session: None) -> None:
    # one cell that kills its worker once, and one that always does: its neighbours in the chunk have their results
    misbehaviour: dict[str, Any] = {"folder": str(tmp_path), "die_once": 20, "die_always": 50}
    run = handle(tmp_path / "run", RayTasks(Resources(cpus=4), 0, nowhere))
    found = run.map(grid.value, points(60), shared(**misbehaviour))
    assert [index for index, each in enumerate(found) if each is None] == [50]
    (failed,) = run.failed_cells
    assert failed.failure.cause == "worker_lost" and failed.count == 1 and '"index":50' in failed.first
    assert "its worker died (WorkerCrashedError), 1 time(s) (limits.max_failures: 0)" in str(failed)


# ---- progress -----------------------------------------------------------------------------------------------------


def test_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapping, "FLUSH_SECONDS", 0.05)
    told: list[CellProgress] = []
    run = handle(tmp_path, InProcess(told.append))
    run.map(grid.value, points(20), shared(seconds=0.02, fail=(2,)))
    assert (told[0].done, told[0].total, told[0].seconds_left) == (0, 20, None)
    assert len(told) > 3 and [each.done for each in told] == sorted(each.done for each in told)
    assert (told[-1].done, told[-1].failed, told[-1].seconds_left) == (19, 1, 0.0)
    assert 5 < told[-1].per_second < 51
    assert str(dataclasses.replace(told[-1], per_second=33.3)) == "value 19/20 cells, 33.3/s, 1 failed"


# ---- nothing is computed twice ------------------------------------------------------------------------------------


def test_only_what_is_missing_is_computed(tmp_path: Path) -> None:
    given = shared(folder=str(tmp_path))
    first = handle(tmp_path / "run").map(grid.value, points(5), given)
    second = handle(tmp_path / "run").map(grid.value, points(8), given)
    assert identical(second[:5], first) and computed(tmp_path) == Counter(range(8))
    other = {**given, "weights": given["weights"] + 1}
    third = handle(tmp_path / "run").map(grid.value, points(5), other)
    assert third[0]["loss"] != first[0]["loss"], "a map of the same name with other content"
    assert identical(handle(tmp_path / "run").map(grid.value, points(5), given), first)
    handle(tmp_path / "run").map(grid.value, points(5), given, name="other")
    assert computed(tmp_path) == Counter({**dict.fromkeys(range(5), 3), **dict.fromkeys(range(5, 8), 1)})


def test_trials_compute_together_what_they_have_in_common(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three at the same time, of which each wants a part of what the others want: nothing is computed twice."""
    monkeypatch.setattr(cells, "LOOK_SECONDS", 0.02)
    given, common = shared(folder=str(tmp_path), seconds=0.01), open_store(str(tmp_path / "run"))
    asked = {"a": points(20), "b": points(30), "c": [*points(3), {"index": 40, "seed": 1}]}
    runs = {name: Run(common / "trials" / name, 7, common=common) for name in asked}
    found: dict[str, list[Any]] = {}

    def trial(name: str) -> None:
        found[name] = runs[name].map_across_trials(grid.value, asked[name], given)

    threads = [threading.Thread(target=trial, args=(name,)) for name in asked]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert computed(tmp_path) == Counter([*range(30), 40])
    for name, wanted in asked.items():
        assert identical(found[name], [grid.value(cell, shared()) for cell in wanted])
    assert not list(tmp_path.rglob("lock.json")) and not (tmp_path / "run/trials").exists()
    alone = handle(tmp_path / "other").map_across_trials(grid.value, points(2), given)
    assert identical(alone, found["a"][:2]) and computed(tmp_path)[0] == 2, "another run computes its own"


def test_a_trial_that_waits_for_another_can_be_stopped_and_outlives_it(tmp_path: Path) -> None:
    common = open_store(str(tmp_path / "run"))
    store = CellStore(common, common=True)

    class StoppedError(Exception):
        pass

    def stop() -> None:
        raise StoppedError

    with store.alone(stop):
        with pytest.raises(StoppedError), CellStore(common, common=True).alone(stop):
            pass
        lock = json.loads(common.read("lock.json"))
    common.write_json("lock.json", {**lock, "pid": gone()})
    with store.alone(stop):
        pass  # its process is gone: nobody is waited for


def test_a_part_that_another_trial_joins_with_others_is_looked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = CellStore(open_store(str(tmp_path)), common=True)
    store.add("key", "1", Outcome(0.0, b"result"))
    store.flush()
    listed = [["gone.parquet", *store.folder.names()], store.folder.names()]
    monkeypatch.setattr(store.folder, "names", lambda: listed.pop(0))
    assert store.load({"key"}) == {"key": b"result"} and not listed
    store.folder.write("broken.parquet", b"")
    listed.append(["broken.parquet"])
    with pytest.raises(StoreError, match=r"broken\.parquet is damaged"):
        store.load({"key"})


@pytest.mark.slow  # tests/cluster/test_fanout.py kills a driver, and a node before that
def test_kill_the_driver_and_resume(tmp_path: Path, ray_session: None) -> None:
    calm = grid_spec(tmp_path / "calm", params={"cells": 80})
    expected = trial_folder(calm, runner.start(calm, Execution(serial=True))).read_table("tables/losses.parquet")
    params = {"cells": 80, "seconds": 0.1, "folder": str(tmp_path)}
    job_spec = grid_spec(tmp_path / "store", params=params)
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(job_spec.tree()))
    words = [sys.executable, "-m", "service", "run", str(path), "--id", "killed", "--cpus", "2"]
    with started(words, env={**os.environ, "RAY_ADDRESS": ""}, stdout=subprocess.DEVNULL) as driver:
        wait_for(lambda: persisted(tmp_path / "store"), driver)
        workers = titles(driver.pid)
        driver.kill()
    wait_for(lambda: not running(workers))  # they go with their driver
    kept = persisted(tmp_path / "store")
    assert 0 < len(kept) < 80
    state = runner.resume(open_store(job_spec.store), "killed", Execution(serial=True))
    assert state.status == "finished", state.failure
    assert trial_folder(job_spec, state).read_table("tables/losses.parquet").equals(expected)
    again = computed(tmp_path, by=os.getpid())
    assert not set(again) & kept, "a persisted cell was computed again"
    assert set(again) | kept == set(range(80)) and max(again.values()) == 1


def test_cancel_a_sweep_on_one_core_and_resume(
    tmp_path: Path, ray_session: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two trials whose cells occupy the whole cluster each: none waits for a core that a trial holds."""
    sweep = {"grid": {"seed": [1, 2]}}
    params = {"cells": 120, "seconds": 0.05, "folder": str(tmp_path)}
    job_spec = grid_spec(tmp_path / "store", params=params, sweep=sweep, resources={"cpus": 4})
    folder = open_store(job_spec.store) / "runs" / "stopped"

    def cancel_when_some_are_kept() -> None:
        wait_for(lambda: len(persisted(tmp_path / "store")) > 10)
        folder.write(CANCEL, b"")

    canceller = threading.Thread(target=cancel_when_some_are_kept)
    canceller.start()
    state = runner.start(job_spec, Execution(), run_id="stopped")
    canceller.join()
    assert state.status == "cancelled", state.failure
    before = computed(tmp_path)  # and some that no one stops any more
    rows = sum(len(store_of(file).read_table(file.name)) for file in (tmp_path / "store").rglob("cells/**/*.parquet"))
    assert 10 < rows < 240
    assert sum(before.values()) - rows < 60, "what had arrived was written: only the chunks in flight are lost"
    monkeypatch.setenv(HURRY, str(tmp_path))
    state = runner.resume(open_store(job_spec.store), "stopped", Execution(serial=True))
    assert state.status == "finished", state.failure
    assert sum(computed(tmp_path, by=os.getpid()).values()) == 240 - rows
    calm = grid_spec(tmp_path / "calm", params={"cells": 120}, sweep=sweep)
    calm_state = runner.start(calm, Execution(serial=True))
    for name in (folder / "trials").names():
        expected = open_store(calm.store) / "runs" / calm_state.id / "trials" / name
        table = (folder / "trials" / name).read_table("tables/losses.parquet")
        assert table.equals(expected.read_table("tables/losses.parquet"))


# in a process of Ray the handle is made by the same function
@pytest.mark.parametrize("serial", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_job_that_does_not_say_that_it_fans_out_is_told(tmp_path: Path, ray_session: None, serial: bool) -> None:
    job_spec = spec.build({**grid_spec(tmp_path / "store").tree(), "job": "tests.service.plain_grid"})
    state = runner.start(job_spec, Execution(serial))
    assert state.status == "failed" and state.failure is not None and state.failure.cause == "user_error"
    assert "run.map is for jobs that fan out" in state.failure.message


def test_time_limit_of_a_serial_run(tmp_path: Path) -> None:
    params = {"cells": 1000, "seconds": 0.02, "folder": str(tmp_path)}
    job_spec = grid_spec(tmp_path / "store", params=params, limits={"max_seconds": 1})
    state = runner.start(job_spec, Execution(serial=True))
    assert state.status == "cancelled" and state.failure is not None and state.failure.cause == "timeout"
    assert persisted(tmp_path / "store") == set(computed(tmp_path)) != set()
