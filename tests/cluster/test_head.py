"""The head is killed and started again, with what it knew in Redis: nodes and table stay, and the run is gone on with.

On one machine Ray counts every driver as one of the head's node: it is lost with the head, as one on the head would be.
"""

import re
from pathlib import Path

import pytest

from service.cluster.packaging import LAUNCHER
from tests.cluster.nodes import LocalCluster
from tests.cluster.redis_server import Redis
from tests.cluster.test_survival import run_of, undisturbed, written
from tests.processes import ended, kill_tree, titles, wait_for
from tests.service.execution.fan_out.test_mapping import computed, persisted

pytestmark = pytest.mark.slow  # minutes: nodes are started, lost and waited for


def test_a_run_outlives_its_head(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    redis = Redis(tmp_path_factory.mktemp("redis"))
    cluster = LocalCluster(RAY_REDIS_ADDRESS=redis.address, RAY_gcs_rpc_server_reconnect_timeout_s="120")
    try:
        cluster.ensure(1, cpus=2)
        params = {"cells": 80, "seconds": 1.0, "folder": str(tmp_path)}
        path = written(tmp_path, "tests.service.grid", params=params)
        at = ("--address", cluster.dashboard)
        ended(cluster.run("submit", str(path), "--id", "here", "--detach", "--driver-cpus", "1", *at))
        wait_for(lambda: len(persisted(tmp_path / "store")) >= 6)
        kill_tree(cluster.head)
        cluster.start_head()
        (node,) = cluster.nodes
        wait_for(lambda: len(cluster.alive()) == 2)
        assert node.poll() is None, "the node was not started again"
        assert cluster.jobs().run("here").status == "running", "the table of jobs is there"
        (driver,) = [each for each, title in titles(node.pid).items() if re.match(f"python.* {LAUNCHER} run ", title)]
        driver.kill()
        wait_for(lambda: cluster.jobs().run("here").status == "lost")
        cluster.hurry()
        kept, before = persisted(tmp_path / "store"), sum(computed(tmp_path).values())
        said = ended(cluster.run("resume", "here", "--store", str(tmp_path / "store"), *at))
        assert "finished: 1 of 1 trials" in said
        assert 0 < len(kept) < 80
        assert sum(computed(tmp_path).values()) == before + 80 - len(kept), "nothing that was kept is computed again"
        (trial,) = (run_of(tmp_path) / "trials").names()
        calm = undisturbed(tmp_path, path, "params.folder=''")
        tables = [each / "trials" / trial for each in (run_of(tmp_path), calm)]
        assert tables[0].read_table("tables/losses.parquet").equals(tables[1].read_table("tables/losses.parquet"))
    finally:
        cluster.close()
        redis.close()
