"""What an autoscaler goes by: demand that it sees, work that spreads when a node joins, nothing that holds an idle one.

Ray's own autoscaler is not part of it: nodes are added by hand, and GPUs are pretended.
"""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.execution import history
from tests.cluster.nodes import BIN, LocalCluster
from tests.cluster.test_survival import run_of, written
from tests.processes import ended, wait_for

pytestmark = pytest.mark.slow  # minutes: nodes are started, lost and waited for

GROWS = json.dumps([{"count": 4, "CPU": 4, "GPU": 2}])


@pytest.fixture
def growing(cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalCluster]:
    """A cluster whose drivers are told that nodes with GPUs may come. Those that came go afterwards."""
    monkeypatch.setitem(cluster.environment, "ASSAY_NODE_TYPES", GROWS)
    before = list(cluster.nodes)
    yield cluster
    for node in [each for each in cluster.nodes if each not in before]:
        cluster.remove(node)


def test_a_sweep_and_a_fan_out_ask_for_gpus_and_let_go_of_them(growing: LocalCluster, tmp_path: Path) -> None:
    """Nobody has a GPU. Then a node with one comes: half of it is enough for each of two trials, at the same time."""
    meeting, cells = tmp_path / "meeting", tmp_path / "cells"
    meeting.mkdir(), cells.mkdir()
    half = {"cpus": 0.5, "gpus": 0.5}
    params = {"folder": str(meeting), "company": 2}
    sweep = {"grid": {"seed": [1, 2]}}
    trials = growing.drive(
        "run",
        str(written(meeting, "tests.cluster.rendezvous", params=params, sweep=sweep, resources=half)),
        "--id",
        "here",
    )
    fan_out = growing.drive("run", str(written(cells, "tests.service.grid", resources=half)), "--id", "here")
    wait_for(lambda: growing.demand("CPU", "GPU") >= 8 and growing.demanded_groups("GPU") >= 2)
    status = subprocess.run(
        [BIN / "ray", "status", "--address", growing.address], env=growing.environment, capture_output=True, text=True
    )
    assert "'GPU': 0.5" in status.stdout and "placement groups" in status.stdout, status.stdout + status.stderr

    growing.add("--num-gpus", "1", cpus=2, wait=False)
    ended(trials)
    ended(fan_out)
    assert [each.metrics["most"] for each in history.trials(run_of(meeting))] == [2.0, 2.0]
    wait_for(lambda: growing.demand("CPU", "GPU") == growing.demanded_groups("GPU") == 0)
    wait_for(lambda: not held(growing))  # nothing holds a node when the work is done


def held(cluster: LocalCluster) -> list[str]:
    """Actors that live and placement groups that stand."""
    actors = cluster.ask("/api/v0/actors?limit=1000")["data"]["result"]["result"]
    groups = cluster.ask("/api/v0/placement_groups?limit=1000")["data"]["result"]["result"]
    found = [
        each["class_name"] for each in actors if each["state"] == "ALIVE" and each["class_name"] != "JobSupervisor"
    ]
    return found + [each["placement_group_id"] for each in groups if each["state"] != "REMOVED"]


def test_more_tasks_are_in_flight_when_a_node_joins(growing: LocalCluster, tmp_path: Path) -> None:
    """Two cores: 8 tasks at once, 2 of them running. With 4 cores more: 24."""
    params = {"cells": 250, "seconds": 1.0, "folder": str(tmp_path)}
    driver = growing.drive("run", str(written(tmp_path, "tests.service.grid", params=params)), "--id", "here")
    wait_for(lambda: growing.demand("CPU") >= 5)
    assert growing.demand("CPU") <= 8
    growing.add(cpus=4, wait=False)
    wait_for(lambda: growing.demand("CPU") >= 12)
    growing.hurry()
    ended(driver)


@pytest.mark.parametrize("workers", [1, 2])
def test_what_finds_no_room_says_so_after_a_set_time(growing: LocalCluster, tmp_path: Path, workers: int) -> None:
    fields = {"resources": {"gpus": 2, "workers": workers}, "limits": {"max_wait_seconds": 8}}
    said = ended(growing.drive("run", str(written(tmp_path, "tests.service.walk", **fields)), "--id", "here"), 1)
    assert "limits.max_wait_seconds: trial 'tests-service-walk' waited 8 s for " in said
    assert "1 CPU and 2 GPU on a node; the cluster has 2 CPU, 0 GPU" in said
    assert history.load(run_of(tmp_path)).status == "failed"
    wait_for(lambda: not held(growing))


def test_cells_that_find_no_room_say_so_after_a_set_time(growing: LocalCluster, tmp_path: Path) -> None:
    fields = {"resources": {"gpus": 2}, "limits": {"max_wait_seconds": 15}}  # enough for the trial's own start
    said = ended(growing.drive("run", str(written(tmp_path, "tests.service.grid", **fields)), "--id", "here"), 1)
    assert "limits.max_wait_seconds: cells of grid waited 15 s for 1 CPU and 2 GPU on a node" in said


def test_so_many_trials_at_once_and_a_time_budget(growing: LocalCluster, tmp_path: Path) -> None:
    params = {"folder": str(tmp_path), "company": 1, "stay": 1.5}
    fields = {"sweep": {"grid": {"seed": list(range(60))}}, "limits": {"max_concurrent": 1, "max_seconds": 30}}
    path = written(tmp_path, "tests.cluster.rendezvous", params=params, **fields)
    said = ended(growing.drive("run", str(path), "--id", "here"), 130)
    assert "limits.max_seconds: 30 s are over" in said
    trials = history.trials(run_of(tmp_path))
    assert 0 < len(trials) < 60
    assert {each.metrics["most"] for each in trials} == {1.0}, "never two at once"
