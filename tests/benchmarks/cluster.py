"""What several nodes give: a fan-out on 1 and 2 nodes of a core, Serve on 1 and 2 replicas.

Nodes are those of a cluster on this machine; on fewer than three free cores they share cores with the head and the
clients, and the second node gives less than it would elsewhere. Replicas compute one request at a time: a batch of all
of them would take little longer than one, and hide the second replica.
"""

import json
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import yaml

from service.execution import history
from service.store import Folder, open_store
from tests.cluster.nodes import BIN, LocalCluster
from tests.ports import free_port
from tests.processes import PATIENCE_SECONDS, ended, started, wait_for
from tests.serving.models import bits, put

CELLS, SECONDS = 600, 0.1
CLIENTS, MEASURED = 8, 20.0


def finished(folder: Path, name: str) -> Folder:
    return open_store(str(folder / "store")) / "runs" / name


def fan_out(cluster: LocalCluster, folder: Path, name: str, cells: int = CELLS) -> float:
    """Seconds that the trial of a run took, by its record."""
    spec = {"job": "tests.benchmarks._busy", "store": str(folder / "store")}
    (folder / "spec.yaml").write_text(yaml.safe_dump(spec | {"params": {"cells": cells, "seconds": SECONDS}}))
    ended(cluster.drive("run", str(folder / "spec.yaml"), "--id", name))
    (trial,) = history.trials(finished(folder, name))
    return trial.seconds


def requests_per_second(cluster: LocalCluster, folder: Path, replicas: int) -> float:
    port = free_port()
    settings = {
        "http": {"port": port},
        "replicas": {"min": replicas, "max": replicas},
        "batching": {"max_rows": 1},
        "attacks": {"enabled": False},
    }
    (folder / "serve.yaml").write_text(yaml.safe_dump(settings))
    words = ["serve", "--store", str(folder / "models"), "--config", str(folder / "serve.yaml")]
    environment = {**cluster.environment, "RAY_ADDRESS": cluster.address}
    tensor = {"name": "input", "datatype": "FP32", "shape": [1, 1, 64], "data": bits(1, 64).flatten().tolist()}
    body = json.dumps({"inputs": [tensor], "parameters": {"iterations": 1500}})
    done, answered = threading.Event(), [0] * CLIENTS

    def client(index: int) -> None:
        with httpx.Client(timeout=60) as http:
            while not done.is_set():
                answer = http.post(f"http://127.0.0.1:{port}/v2/models/sums/infer", content=body)
                answered[index] += answer.status_code == 200

    with (
        open(folder / "serve.log", "wb") as log,
        started([BIN / "assay", *words], env=environment, stdout=log, stderr=log) as server,
    ):
        wait_for(lambda: b"serving 1 model" in (folder / "serve.log").read_bytes(), server)
        with ThreadPoolExecutor(CLIENTS) as pool:
            futures = [pool.submit(client, index) for index in range(CLIENTS)]
            time.sleep(6)  # until every replica holds the model
            before, began = sum(answered), time.perf_counter()
            time.sleep(MEASURED)
            rate = (sum(answered) - before) / (time.perf_counter() - began)
            done.set()
            for future in futures:
                future.result()
        server.terminate()
        server.wait(PATIENCE_SECONDS)
        return rate


def main() -> None:
    cluster = LocalCluster()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            cluster.ensure(1)
            starts, whole = [fan_out(cluster, folder, "start", cells=1)], [fan_out(cluster, folder, "one")]
            cluster.ensure(2)
            starts.append(fan_out(cluster, folder, "start-two", cells=2))
            whole.append(fan_out(cluster, folder, "two"))
            for nodes, start, took in zip((1, 2), starts, whole, strict=True):
                ideal = CELLS * SECONDS / nodes
                print(f"{CELLS} cells of {SECONDS} core-seconds on {nodes} node(s): {took:.1f} s", end=", ")
                print(f"{ideal / took:.3f} of ideal, {ideal / (took - start):.3f} after a start of {start:.1f} s")
            cells = (whole[0] - starts[0]) / (whole[1] - starts[1])
            print(f"on 2 nodes {whole[0] / whole[1]:.2f} times as fast as on 1, after the start {cells:.2f} times")
            put(open_store(str(folder / "models")), "sums", width=16)
            rates = [requests_per_second(cluster, folder, replicas) for replicas in (1, 2)]
            print(f"Serve: 2 replicas answer {rates[1] / rates[0]:.2f} times as many requests as 1 ({rates[0]:.0f}/s)")
        finally:
            cluster.close()


if __name__ == "__main__":
    main()
