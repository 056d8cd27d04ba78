"""A loss surface on several nodes: one is killed, another joins, the driver is killed, and the run goes on."""

import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import yaml
from pyarrow import parquet
from ray.cluster_utils import Cluster

SPEC = {
    "job": "loss_landscape",
    "params": {
        "data": {"name": "digits"},
        "network": {
            "kind": "train",
            "classifier": {"name": "digits_net"},
            "training": {
                "epochs": 1,
                "batch": 100,
                "optimizer": {"kind": "sgd", "learning_rate": 0.05},
            },
        },
        "evaluation": {"loss": "tests.cluster.losses:slow_cross_entropy"},
        "images": 100,
        "grid": {"x": {"steps": 25}, "y": {"steps": 25}},
    },
}
POINTS = 25 * 25


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A head without cores and two nodes of one core each, apart from the Ray of the other tests."""
    monkeypatch.setenv("PYTHONPATH", os.getcwd())
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        nodes.add_node(num_cpus=1)
    yield nodes
    nodes.shutdown()


def test_a_surface_outlives_a_node_and_its_driver(cluster: Cluster, tmp_path: Path) -> None:
    spec = tmp_path / "surface.yaml"
    store = tmp_path / "store"
    spec.write_text(yaml.safe_dump(SPEC | {"store": str(store)}))

    undisturbed = assay("run", str(spec), "--id", "undisturbed", "--serial")
    driver = assay("run", str(spec), "--id", "disturbed", "--address", cluster.address)
    wait_for(lambda: len(kept(store)) >= 50)
    victim = next(iter(cluster.worker_nodes))
    cluster.remove_node(victim, allow_graceful=False)
    cluster.add_node(num_cpus=1)
    survived = len(kept(store))
    wait_for(lambda: len(kept(store)) >= survived + 50)
    driver.kill()
    driver.wait()
    before = kept(store)
    assert len(before) < POINTS, "the driver is killed in the middle"

    again = assay("resume", "disturbed", "--store", str(store), "--address", cluster.address)
    assert again.wait(timeout=300) == 0
    after = kept(store)
    assert len(after) == POINTS
    assert all(len(rows) == 1 for rows in after.values()), "no cell is kept twice"
    assert before.items() <= after.items(), "what was kept before the kill was not computed again"

    assert undisturbed.wait(timeout=300) == 0
    for name in ("loss", "accuracy"):
        surfaces = [surface(store, run, name) for run in ("disturbed", "undisturbed")]
        assert np.array_equal(*surfaces), name


def assay(*words: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-m", "service", *words], stdout=subprocess.DEVNULL)


def kept(store: Path) -> dict[str, list[float]]:
    """The points of the surface that have been written: how long each was computed, as often as it is there."""
    found: dict[str, list[float]] = defaultdict(list)
    for part in store.glob("runs/disturbed/trials/*/cells/surface/*/*.parquet"):
        with suppress(FileNotFoundError):  # it was joined with others in between
            for row in parquet.read_table(part, columns=["key", "seconds"]).to_pylist():
                found[row["key"]].append(row["seconds"])
    return found


def surface(store: Path, run: str, name: str) -> np.ndarray:
    (path,) = (store / "runs" / run).glob(f"trials/*/tables/{name}.npy")
    return np.load(path)


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)
