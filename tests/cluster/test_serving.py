"""Endpoints on several nodes: one is killed with requests in flight; replicas come with load and go with it."""

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
import yaml

from service.store import open_store
from tests.cluster.nodes import BIN, LocalCluster
from tests.ports import free_port
from tests.processes import PATIENCE_SECONDS, started, wait_for
from tests.serving.models import bits, put

pytestmark = pytest.mark.slow  # minutes: nodes are started, lost and waited for

SLOW = 400  # iterations of thought of a small network: a tenth of a second or so
CLIENTS = 4


@pytest.fixture(scope="module")
def served(head: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of endpoints with one to three replicas of one core each, on two nodes of one core each."""
    head.ensure(2)
    folder = tmp_path_factory.mktemp("serve")
    put(open_store(str(folder / "store")), "sums", width=16)
    settings = folder / "serve.yaml"
    port = free_port()
    replicas = {"min": 1, "max": 3, "target_ongoing": 1, "upscale_seconds": 0.5, "downscale_seconds": 4}
    settings.write_text(yaml.safe_dump({"http": {"port": port}, "replicas": replicas, "attacks": {"enabled": False}}))
    environment = {**head.environment, "RAY_ADDRESS": head.address, "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.5"}
    words = [BIN / "assay", "serve", "--store", str(folder / "store"), "--config", str(settings)]
    with open(folder / "log", "wb") as log, started(words, env=environment, stdout=log, stderr=log) as server:
        wait_for(lambda: b"serving 1 model" in (folder / "log").read_bytes(), server)
        yield f"http://127.0.0.1:{port}"
        server.terminate()
        server.wait(PATIENCE_SECONDS)


def running(cluster: LocalCluster) -> int:
    """Replicas that run, as Serve tells it."""
    replicas = cluster.ask("/api/serve/applications/")["applications"]["assay"]["deployments"]["models"]["replicas"]
    return sum(each["state"] == "RUNNING" for each in replicas)


class Load:
    """Clients that ask one question after another. answers: by status; a question that failed is asked again."""

    def __init__(self, url: str) -> None:
        data = bits(1, 64).flatten().tolist()
        tensor = {"name": "input", "datatype": "FP32", "shape": [1, 1, 64], "data": data}
        self.body = json.dumps({"inputs": [tensor], "parameters": {"iterations": SLOW}})
        self.url = f"{url}/v2/models/sums/infer"
        self.answers: Counter[int] = Counter()
        self.outputs: set[str] = set()
        self.lost = 0
        self.done = threading.Event()

    def ask(self, client: httpx.Client) -> int:
        answer = client.post(self.url, content=self.body)
        self.answers[answer.status_code] += 1
        if answer.status_code == 200:
            self.outputs.add(json.dumps(answer.json()["outputs"][0]["data"]))
        return answer.status_code

    def client(self) -> None:
        with httpx.Client(timeout=60) as client:
            while not self.done.is_set():
                for _ in range(50):  # to infer twice does no harm
                    if self.ask(client) == 200:
                        break
                    time.sleep(0.2)
                else:
                    self.lost += 1

    def __enter__(self) -> "Load":
        self.pool = ThreadPoolExecutor(CLIENTS)
        self.futures = [self.pool.submit(self.client) for _ in range(CLIENTS)]
        return self

    def __exit__(self, *exc: Any) -> None:
        self.done.set()
        for future in self.futures:
            future.result(timeout=120)
        self.pool.shutdown()


def test_replicas_come_with_load_a_node_dies_under_them_and_they_go(cluster: LocalCluster, served: str) -> None:
    wait_for(lambda: running(cluster) == 1)
    with Load(served) as load:
        wait_for(lambda: running(cluster) == 2 and cluster.demand("CPU") == 1)  # for the third an autoscaler would add
        wait_for(lambda: load.answers[200] >= 10)
        assert set(load.answers) == {200}, load.answers
        (victim, *_) = [node for node in cluster.nodes if cluster.workers(node, "ServeReplica")]
        cluster.kill(victim)
        answered = load.answers[200]
        wait_for(lambda: load.answers[200] >= answered + 10)  # the other replica goes on alone
        cluster.add(wait=False)
        wait_for(lambda: running(cluster) == 2)
    failed = sum(load.answers.values()) - load.answers[200]
    assert failed <= CLIENTS, f"only what was being computed is lost: {load.answers}"
    assert load.lost == 0, "a question that is asked again is answered"
    assert len(load.outputs) == 1, "every replica answers the same"
    wait_for(lambda: running(cluster) == 1)
