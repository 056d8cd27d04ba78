"""A loss surface on several nodes: one is killed, another joins, the driver is killed, and the run goes on."""

import io
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

import numpy as np
from pyarrow import parquet

from service.execution import history
from service.store import Folder
from tests.cluster.nodes import LocalCluster
from tests.cluster.test_survival import run_of, undisturbed, written
from tests.processes import ended, wait_for

PARAMS = {
    "data": {"name": "digits"},
    "network": {
        "kind": "train",
        "classifier": {"name": "digits_net"},
        "training": {"epochs": 1, "batch": 100, "optimizer": {"kind": "sgd", "learning_rate": 0.05}},
    },
    "evaluation": {"loss": "tests.cluster.losses:slow_cross_entropy"},
    "images": 100,
    "grid": {"x": {"steps": 17}, "y": {"steps": 17}},
}
POINTS = 17 * 17


def test_a_surface_outlives_a_node_and_its_driver(cluster: LocalCluster, tmp_path: Path) -> None:
    path = written(tmp_path, "loss_landscape", params=PARAMS)
    driver = cluster.drive("run", str(path), "--id", "here")
    wait_for(lambda: len(kept(tmp_path)) >= 10)
    (victim,) = [node for node in cluster.nodes if not cluster.workers(node, "ImplicitFunc")]  # it has cells alone
    cluster.kill(victim)
    cluster.add(wait=False)
    survived = len(kept(tmp_path))
    wait_for(lambda: len(kept(tmp_path)) >= survived + 20)
    driver.kill()
    driver.communicate()
    assert history.load(run_of(tmp_path)).status == "lost"
    before = kept(tmp_path)
    assert len(before) < POINTS, "the driver is killed in the middle"
    cluster.hurry()

    ended(cluster.drive("resume", "here", "--store", str(tmp_path / "store")))
    after = kept(tmp_path)
    assert len(after) == POINTS
    assert all(len(rows) == 1 for rows in after.values()), "no cell is kept twice"
    assert before.items() <= after.items(), "what was kept before the kill was not computed again"

    calm = undisturbed(tmp_path, path)
    for name in ("loss", "accuracy"):
        assert np.array_equal(surface(run_of(tmp_path), name), surface(calm, name)), name


def kept(folder: Path) -> dict[str, list[float]]:
    """The points of the surface that have been written: how long each was computed, as often as it is there."""
    found: dict[str, list[float]] = defaultdict(list)
    for part in folder.glob("store/runs/here/trials/*/cells/surface/*/*.parquet"):
        with suppress(FileNotFoundError):  # it was joined with others in between
            for row in parquet.read_table(part, columns=["key", "seconds"]).to_pylist():
                found[row["key"]].append(row["seconds"])
    return found


def surface(run: Folder, name: str) -> np.ndarray:
    (trial,) = (run / "trials").names()
    return np.load(io.BytesIO((run / "trials" / trial).read(f"tables/{name}.npy")))
