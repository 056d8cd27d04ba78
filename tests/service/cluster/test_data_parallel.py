"""Trials that two processes train together: the same results as one process, and what happens when a rank ends badly.

A TorchTrainer takes half a minute to start on a small machine, so but for one all of these are slow.
"""

import os
import signal
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import psutil
import pytest
from torch import distributed

from service import spec
from service.cluster import connection, data_parallel
from service.cluster.data_parallel import SharedRun, wait_for_all
from service.errors import ClusterError, SpecError
from service.execution import history, layout, records, runner
from service.execution.records import RunRecord, TrialRecord
from service.execution.runner import Execution
from service.handle.rows import nowhere
from service.run import Run
from service.spec import Resources
from service.store import Folder, open_store
from tests.processes import running, titles, wait_for
from tests.ranks import answers

TWO = {"workers": 2}


@pytest.fixture(scope="module")
def ray_of_two() -> Any:
    """An embedded Ray that two workers fill: whatever stays reserved makes the next trial wait for ever."""
    with connection.connect(address="local", cpus=2):
        yield


def descend(store: Path, serial: bool = False, **fields: Any) -> tuple[RunRecord, Folder]:
    job_spec = spec.build({"job": "tests.service.descent", "store": str(store), **fields})
    state = runner.start(job_spec, Execution(serial=serial))
    return state, open_store(job_spec.store) / "runs" / state.id


def only_trial(folder: Folder) -> TrialRecord:
    (trial,) = history.trials(folder)
    return trial


def weights_and_losses(folder: Folder) -> tuple[np.ndarray, list[float]]:
    weights = np.load(f"{folder.path}/trials/{only_trial(folder).id}/tables/weights.npy")
    return weights, [row["loss"] for row in folder.read_table("metrics.parquet").to_pylist()]


def assert_same(folder: Folder, serial: Folder) -> None:
    for found, expected in zip(weights_and_losses(folder), weights_and_losses(serial), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def use_handle(store: str) -> tuple[Any, list[float], dict[str, float]]:
    """What one of two processes does with its handle, without Ray."""
    rank = distributed.get_rank()
    reported: list[float] = []
    run = SharedRun(open_store(store), 0, lambda index, row, total_steps: reported.append(row["height"]), rank)
    run.log(step=1, height=rank)
    run.checkpoint({"rank": rank})
    run.array("rank", np.array(rank))
    wait_for_all()
    return run.restore(), reported, run.metrics


@pytest.mark.xdist_group("tests/jobs/common/training/test_parallel.py")  # whose process has loaded torch for ranks
def test_only_the_first_rank_writes_and_all_know_the_same(tmp_path: Path) -> None:
    told = answers(use_handle, str(tmp_path))
    assert told[0] == ({"rank": 0}, [0.0, 0.0], {"height": 0.0})  # reported once more when it was restored
    assert told[1] == ({"rank": 0}, [], {"height": 0.0})
    assert np.load(tmp_path / "tables" / "rank.npy") == 0


@pytest.mark.parametrize("rank", [0, 1])
def test_the_first_rank_alone_writes_remarks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rank: int) -> None:
    monkeypatch.setattr(data_parallel, "wait_for_all", lambda: None)
    folder = open_store(str(tmp_path))
    Run(folder, 0).checkpoint({})
    run = SharedRun(folder, 0, nowhere, rank)
    run.restore()
    run.note("batches of 8")
    run.warn("memory ran out")
    assert folder.exists(layout.REMARKS) == (rank == 0)
    if rank == 0:
        said = records.read_remarks(folder)
        assert (said.notes, said.warnings) == (("batches of 8",), ("memory ran out",))


def test_remarks_of_an_earlier_attempt_are_gone_before_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = open_store(str(tmp_path))
    Run(folder, 0).warn("said before the worker was lost")
    left: list[bool] = []
    monkeypatch.setattr(data_parallel, "train", Mock(**{"get_context.return_value.get_world_rank.return_value": 0}))
    for name in ("ray", "get_current_placement_group", "wait_for_all", "conclude"):
        monkeypatch.setattr(data_parallel, name, Mock())
    monkeypatch.setattr(data_parallel, "perform", lambda plan, run: left.append(folder.exists(layout.REMARKS)))
    job_spec = spec.build({"job": "tests.service.descent", "store": str(tmp_path)})
    data_parallel.work({"plan": SimpleNamespace(id="trial", spec=job_spec), "relay": Mock(), "folder": str(tmp_path)})
    assert left == [False]


def test_two_processes_equal_one(tmp_path: Path, ray_session: None) -> None:
    state, folder = descend(tmp_path / "two", resources=TWO)
    assert state.status == "finished", state.failure
    one, serial = descend(tmp_path / "one", serial=True, resources=TWO)
    assert one.status == "finished", one.failure
    assert_same(folder, serial)
    assert [each.path for each in only_trial(folder).artefacts] == ["tables/weights.npy"]
    assert "checkpoints" not in (folder / "trials" / only_trial(folder).id).names()


def test_workers_must_fit(ray_session: None) -> None:
    assert connection.room(Resources(cpus=1.5)) == 2  # on the 4 cores of the session
    connection.check_feasible(Resources(workers=2, cpus=1.5))
    with pytest.raises(ClusterError, match="resources.workers: a trial asks for 3; the cluster has room for 2 of that"):
        connection.check_feasible(Resources(workers=3, cpus=1.5))
    with pytest.raises(ClusterError, match="resources.cpus: a trial asks for 5; the largest node has 4"):
        connection.check_feasible(Resources(workers=2, cpus=5))


def test_workers_have_gpus_of_their_own() -> None:
    with pytest.raises(SpecError, match="resources.gpus must be whole with 2 workers.*; it is 0.5"):
        spec.build({"job": "tests.service.descent", "resources": {"workers": 2, "gpus": 0.5}})


@pytest.mark.slow
def test_an_error_of_one_rank_fails_the_trial_with_its_sentence(tmp_path: Path, ray_of_two: None) -> None:
    state, folder = descend(tmp_path, resources=TWO, params={"fail_at": 3})
    assert state.status == "failed" and state.failure is not None
    assert (state.failure.cause, state.failure.message) == ("user_error", "the last rank fails at step 3")
    assert [row["step"] for row in folder.read_table("metrics.parquet").to_pylist()] == [1, 2, 3]


@pytest.mark.slow
def test_a_lost_worker_goes_on_from_the_checkpoint(tmp_path: Path, ray_of_two: None) -> None:
    params = {"witness": str(tmp_path / "witness"), "die_once_at": 3}
    state, folder = descend(tmp_path / "two", resources=TWO, params=params)
    assert state.status == "finished", state.failure
    starts = sorted((tmp_path / "witness").read_text().splitlines())
    assert starts == ["0 of 2 from step 0", "0 of 2 from step 3", "1 of 2 from step 0", "1 of 2 from step 3"]
    assert_same(folder, descend(tmp_path / "one", serial=True)[1])


@pytest.mark.slow
def test_a_worker_lost_too_often(tmp_path: Path, ray_of_two: None) -> None:
    params = {"witness": str(tmp_path / "witness"), "die_once_at": 3}
    state, _ = descend(tmp_path, resources=TWO, params=params, limits={"max_failures": 0})
    assert state.status == "failed" and state.failure is not None
    assert state.failure.cause == "worker_lost"


@pytest.mark.slow
def test_a_lost_trial_process_leaves_no_reservation(tmp_path: Path, ray_of_two: None) -> None:
    witness = tmp_path / "witness"
    params = {"witness": str(witness), "seconds_per_step": 0.5, "steps": 12}
    killer = threading.Thread(target=kill_trial_process, args=(witness,), daemon=True)
    killer.start()
    state, folder = descend(tmp_path / "two", resources=TWO, params=params)
    killer.join()
    assert state.status == "finished", state.failure
    assert len(witness.read_text().splitlines()) == 4
    assert_same(folder, descend(tmp_path / "one", serial=True, params={"steps": 12})[1])


def kill_trial_process(witness: Path) -> None:
    """Kill the process between Tune and the workers, once both of these have begun."""
    wait_for(lambda: witness.exists() and len(witness.read_text().splitlines()) == 2)
    (trial,) = processes("ResourceTrainable")
    trial.kill()


@pytest.mark.slow
def test_the_scheduler_stops_all_ranks_and_the_next_trial_has_their_place(tmp_path: Path, ray_of_two: None) -> None:
    rule = {"kind": "threshold", "metric": "loss", "at_step": 2, "at_most": 60.0}
    sweep = {"grid": {"params.rate": [1e-6, 0.1]}, "metric": "loss", "mode": "min", "scheduler": rule}
    found = []
    for serial in (True, False):
        state, folder = descend(tmp_path / str(serial), serial=serial, resources=TWO, sweep=sweep)
        assert state.status == "finished", state.failure
        rows = folder.read_table("metrics.parquet").to_pylist()
        found.append([(each.status, sum(row["trial"] == each.id for row in rows)) for each in history.trials(folder)])
    assert found[0] == found[1] == [("stopped", 2), ("finished", 6)]


@pytest.mark.slow
def test_a_cancel_ends_all_ranks_and_a_resume_goes_on(tmp_path: Path, ray_of_two: None) -> None:
    witness = tmp_path / "witness"
    params = {"witness": str(witness), "seconds_per_step": 0.5, "steps": 12}
    threading.Thread(target=cancel, args=(tmp_path / "two",), daemon=True).start()
    state, folder = descend(tmp_path / "two", resources=TWO, params=params)
    assert state.status == "cancelled"
    wait_for(lambda: not running(processes("RayTrainWorker")))
    state = runner.resume(open_store(str(tmp_path / "two")), state.id, Execution())
    assert state.status == "finished", state.failure
    assert "0 of 2 from step 0" not in witness.read_text().splitlines()[2:], "it began anew"
    assert_same(folder, descend(tmp_path / "one", serial=True, params={"steps": 12})[1])


def cancel(store: Path) -> None:
    """Ctrl-C, once the workers have saved something."""
    wait_for(lambda: any(store.glob("runs/*/trials/*/checkpoints/*")))
    os.kill(os.getpid(), signal.SIGINT)


def processes(name: str) -> list[psutil.Process]:
    """Those of the embedded Ray that run an actor of this name."""
    return [each for each, title in titles(os.getpid()).items() if name in title]
