"""The fan-out on several nodes: one is killed and another joins in the middle of a map."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys, threading, time
from pathlib import Path
import ray
from ray.cluster_utils import Cluster
from service.ray_tasks import RayTasks
from service.run import Run
from service.spec import Resources
from service.store import open_store
from tests.service import grid
from tests.service.test_fanout import computed, points, shared, identical

folder = Path(sys.argv[1])
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
ray.init(address=cluster.address, log_to_driver=False)
cluster.wait_for_nodes()

def disturb():
    while sum(computed(folder).values()) < 20:
        time.sleep(0.05)
    cluster.remove_node(nodes[1], allow_graceful=False)
    cluster.add_node(num_cpus=1)

threading.Thread(target=disturb, daemon=True).start()
told = []
run = Run(open_store(str(folder / "run")), 7, executor=RayTasks(Resources(), 2, told.append))
found = run.map(grid.value, points(200), shared(folder=str(folder), seconds=0.1))
given = shared()
assert identical(found, [grid.value(cell, given) for cell in points(200)]), "other results"
times = computed(folder)
assert set(times) == set(range(200))
assert not run.failed_cells
print("computed again:", sum(times.values()) - 200, "of 200")
before = sum(times.values())
run.map(grid.value, points(200), shared(folder=str(folder), seconds=0.1))
assert sum(computed(folder).values()) == before, "all had been kept"
ray.shutdown()
cluster.shutdown()
print("done")
"""


@pytest.mark.slow
def test_a_node_is_killed_and_another_joins(tmp_path: Path) -> None:
    """In a process of its own: this one is connected to the session's Ray."""
    environment = {**os.environ, "RAY_ADDRESS": "", "PYTHONPATH": os.getcwd()}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    again = int(done.stdout.split("computed again:")[1].split()[0])
    assert 0 < again <= 40, "the chunk that the lost node was at, and no more than that"
