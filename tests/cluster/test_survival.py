"""Runs on several nodes give what one process gives, whatever dies meanwhile."""

import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml

from service import spec
from service.execution import runner
from service.execution.runner import Execution
from service.store import Folder, open_store
from tests.cluster.nodes import LocalCluster
from tests.processes import ended, wait_for
from tests.service.execution.test_runner import results
from tests.service.pace import HURRY

pytestmark = pytest.mark.slow  # minutes: nodes are started, lost and waited for

SWEEP = {
    "grid": {"seed": [0, 1, 2, 3], "params.drift": [0.0, 0.5]},
    "metric": "height",
    "scheduler": {"kind": "threshold", "metric": "height", "at_step": 5, "at_least": 0.0},
}


def written(folder: Path, job: str, **fields: Any) -> Path:
    """A spec file of a test job whose store is beside it."""
    path = folder / "spec.yaml"
    path.write_text(yaml.safe_dump({"job": job, "store": str(folder / "store"), **fields}))
    return path


def undisturbed(folder: Path, path: Path, *overrides: str) -> Folder:
    """The run's folder after the same spec has been run in this process."""
    job_spec = spec.load(str(path), [f"store={folder / 'serial'}", *overrides])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(HURRY, str(folder))  # which is there
        state = runner.start(job_spec, Execution(serial=True))
    assert state.status == "finished", state.failure
    return open_store(job_spec.store) / "runs" / state.id


def run_of(folder: Path, id: str = "here") -> Folder:
    return open_store(str(folder / "store")) / "runs" / id


def test_three_nodes_equal_one_process(cluster: LocalCluster, tmp_path: Path) -> None:
    """A sweep with a scheduler that stops some of its trials, and a fan-out."""
    cluster.ensure(2)
    cells = tmp_path / "cells"
    cells.mkdir()
    path, cells_path = written(tmp_path, "tests.service.walk", sweep=SWEEP), written(cells, "tests.service.grid")
    drivers = [cluster.drive("run", str(each), "--id", "here") for each in (path, cells_path)]
    expected, expected_cells = undisturbed(tmp_path, path), undisturbed(cells, cells_path)
    for driver in drivers:
        ended(driver)
    assert results(run_of(tmp_path)) == results(expected)
    assert {end[1] for end in results(expected)["ends"]} == {"finished", "stopped"}
    (mine,), (theirs,) = [(each / "trials").names() for each in (run_of(cells), expected_cells)]
    tables = [(run_of(cells) / "trials" / mine), (expected_cells / "trials" / theirs)]
    assert tables[0].read_table("tables/losses.parquet").equals(tables[1].read_table("tables/losses.parquet"))


def test_a_sweep_outlives_a_worker_and_a_node(cluster: LocalCluster, tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    params = {"witness": str(witness), "pace": {"steps": 60, "seconds_per_step": 1.0}}
    sweep = {"grid": {"seed": [1, 2, 3, 4]}, "metric": "height"}
    path = written(tmp_path, "tests.service.walk", params=params, sweep=sweep)
    driver = cluster.drive("run", str(path), "--id", "here")

    def saved() -> set[str]:
        return {
            name
            for name in (run_of(tmp_path) / "trials").names()
            if (run_of(tmp_path) / "trials" / name).exists("checkpoints")
        }

    wait_for(lambda: len(saved()) >= 2)
    first, second = cluster.nodes
    wait_for(lambda: bool(cluster.workers(first, "ImplicitFunc") or cluster.workers(first, "trial")))
    for worker in cluster.workers(first, "ImplicitFunc") or cluster.workers(first, "trial"):
        os.kill(worker.pid, signal.SIGKILL)
    starts = len(witness.read_text().splitlines())
    wait_for(lambda: len(witness.read_text().splitlines()) > starts)  # it has been started again
    cluster.kill(second)
    cluster.add(wait=False)
    cluster.hurry()
    ended(driver)
    assert len(witness.read_text().splitlines()) > 5, "a worker and a node were lost"
    calm = undisturbed(tmp_path, path, "params.witness=''")
    assert results(run_of(tmp_path)) == results(calm)


def test_the_object_store_fills_up(cluster: LocalCluster, tmp_path: Path) -> None:
    """Two trials share 60 MB each and get back 192 MB; an object store has 100. What does not fit goes to disk."""
    path = written(tmp_path, "tests.cluster.heavy", sweep={"grid": {"seed": [1, 2]}})
    driver = cluster.drive("run", str(path), "--id", "here")
    seen: set[str] = set()
    done = threading.Event()

    def look() -> None:
        while not done.wait(0.05):
            seen.update(str(each) for each in cluster.folder.glob("*/session_2*/ray_spilled_objects_*/*"))

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        ended(driver)
    finally:
        done.set()
        watcher.join()
    assert seen, "something was spilled"
    expected = undisturbed(tmp_path, path)
    for name in (expected / "trials").names():
        tables = [(each / "trials" / name).read_table("tables/sums.parquet") for each in (run_of(tmp_path), expected)]
        assert tables[0].equals(tables[1])
