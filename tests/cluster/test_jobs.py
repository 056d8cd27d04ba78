"""Runs through Ray's Jobs API: submitted, followed, cancelled, lost with the node of their driver, and resumed."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from service.execution import history
from service.store import Folder
from tests.cluster.nodes import BIN, LocalCluster
from tests.cluster.test_survival import run_of, undisturbed, written
from tests.processes import ended, wait_for
from tests.service.execution.test_runner import results

pytestmark = pytest.mark.slow  # minutes: nodes are started, lost and waited for


def test_submit_follows_to_the_end(cluster: LocalCluster, tmp_path: Path) -> None:
    path = written(tmp_path, "tests.service.walk", seed=3)
    at = ("--address", cluster.dashboard)
    said = ended(cluster.run("submit", str(path), "--id", "here", *at, "params.drift=0.5"))
    assert "finished: 1 of 1 trials" in said and "WARNING" not in said
    assert results(run_of(tmp_path)) == results(undisturbed(tmp_path, path, "params.drift=0.5"))
    assert "here" in ended(cluster.run("runs", *at)) and "tests-service-walk: started" in ended(
        cluster.run("logs", "here", *at)
    )
    again = ended(cluster.run("submit", str(path), "--id", "here", *at), 2)
    assert "is in use: a job of that name is finished" in again
    told = {each.id: (each.status, each.exit_code) for each in cluster.jobs().runs()}
    assert told["here"] == ("finished", 0)


def test_plain_ray_job_submit(cluster: LocalCluster, tmp_path: Path) -> None:
    path = written(tmp_path, "tests.service.walk")
    words = ["job", "submit", "--address", cluster.dashboard, "--working-dir", ".", "--"]
    words += ["python", "-m", "service", "run", str(path), "--id", "here"]
    done = subprocess.run([BIN / "ray", *words], env=cluster.environment, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr
    assert history.load(run_of(tmp_path)).status == "finished"


def test_cancel_saves_and_resume_goes_on(cluster: LocalCluster, tmp_path: Path) -> None:
    path = written(tmp_path, "tests.service.walk", params={"pace": {"steps": 40, "seconds_per_step": 0.5}})
    at = ("--address", cluster.dashboard)
    ended(cluster.run("submit", str(path), "--id", "cancelled", "--detach", *at))
    folder = run_of(tmp_path, "cancelled")
    wait_for(lambda: any((folder / "trials" / each).exists("checkpoints") for each in names(folder)))
    assert "run cancelled is cancelled" in ended(cluster.run("cancel", "cancelled", *at))
    assert history.load(folder).status == "cancelled", "the driver had the time to say so"
    cluster.hurry()
    ended(cluster.run("resume", "cancelled", "--store", str(tmp_path / "store"), *at))
    assert results(folder) == results(undisturbed(tmp_path, path))
    assert "is not running: finished" in ended(cluster.run("cancel", "cancelled", *at))


def test_a_run_whose_driver_died_with_its_node_is_lost_and_goes_on(cluster: LocalCluster, tmp_path: Path) -> None:
    sweep = {"grid": {"seed": [1, 2]}, "metric": "height"}
    params = {"pace": {"steps": 60, "seconds_per_step": 1.0}}
    path = written(tmp_path, "tests.service.walk", params=params, sweep=sweep, resources={"cpus": 0.5})
    at = ("--address", cluster.dashboard)
    ended(cluster.run("submit", str(path), "--id", "lost", "--detach", "--driver-cpus", "0.5", *at))
    folder = run_of(tmp_path, "lost")
    wait_for(lambda: any((folder / "trials" / each).exists("checkpoints") for each in names(folder)))
    (home,) = [node for node in cluster.nodes if cluster.workers(node, "JobSupervisor")]
    cluster.kill(home)
    assert history.load(folder).status == "lost"
    wait_for(lambda: cluster.jobs().run("lost").status == "lost")
    cluster.hurry()
    cluster.add(wait=False)
    said = ended(cluster.run("resume", "lost", "--store", str(tmp_path / "store"), *at))
    assert "finished: 2 of 2 trials" in said
    assert results(folder) == results(undisturbed(tmp_path, path))


def test_what_is_refused_before_anything_is_submitted(cluster: LocalCluster, tmp_path: Path) -> None:
    path = written(tmp_path, "tests.service.walk")
    at = ("--address", cluster.dashboard)
    environment = {**cluster.environment, "RAY_AUTH_TOKEN": "0" * 32}
    words = [sys.executable, "-m", "service", "submit", str(path), *at]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "does not accept the token" in done.stderr
    few = ended(cluster.run("submit", str(path), *at, "resources.gpus=2"), 2)
    assert "resources.gpus: a trial asks for 2; the largest node has 0" in few
    assert "give a folder that all nodes share" in ended(cluster.run("submit", str(path), *at, "store=here"), 2)
    assert not (tmp_path / "store").exists()


def test_a_store_that_the_nodes_do_not_share(cluster: LocalCluster, tmp_path: Path) -> None:
    """The driver's own memory stands for a disk that is not shared."""
    path = written(tmp_path, "tests.service.walk")
    said = ended(cluster.drive("run", str(path), "store=memory://here"), 2)
    assert re.search(
        r"store: memory://here is not the same place on node [\d.]+: cannot read memory://here/check-", said
    )
    assert "a folder that all nodes share (NFS, a mounted volume) or to a URI such as s3://bucket/prefix" in said


def names(folder: Folder) -> list[str]:
    return (folder / "trials").names()
