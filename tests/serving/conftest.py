"""One `assay serve` for all tests of this folder that speak HTTP, and another application for those that speak gRPC."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import tritonclient.http as triton
from ray import serve

from service.store import Folder, open_store
from serving import app
from serving.http.settings import (
    Attacks,
    Batching,
    Connections,
    Grpc,
    Http,
    Limits,
    Metrics,
    Models,
    Queue,
    Replicas,
    ServeSettings,
)
from tests.ports import free_port
from tests.processes import PATIENCE_SECONDS, started, wait_for
from tests.serving.models import put, put_classifier

HOST = "127.0.0.2"  # of this machine as well, and of no other process of a server
HALF = Replicas(cpus=0.5)  # of both deployments, on a machine of one core
SETTINGS = ServeSettings(
    http=Http(host=HOST, port=free_port()),
    metrics=Metrics(port=free_port()),
    replicas=HALF,
    batching=Batching(parallel=2),
    models=Models(loaded=3, refresh_seconds=0),
    limits=Limits(body_mb=4, streams=2, pixels=100_000),
    attacks=Attacks(
        replicas=HALF,
        queue=Queue(ongoing=2, waiting=1, retry_after_seconds=3),
        passes=200_000,
        seconds=60,
        rows=40,
    ),
    connections=Connections(body_seconds=1, header_seconds=1, open=256, bodies_mb=32),
)
OVER_GRPC = SETTINGS.model_copy(
    update={"http": Http(port=free_port()), "grpc": Grpc(port=free_port()), "attacks": Attacks(enabled=False)}
)


@dataclass(frozen=True)
class Served:
    """A running application. address, grpc_address: host:port. store: where its models are."""

    address: str
    grpc_address: str
    store: Folder

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    def client(self, concurrency: int = 1) -> triton.InferenceServerClient:
        return triton.InferenceServerClient(self.address, concurrency=concurrency, network_timeout=60)


@dataclass(frozen=True)
class ServedByAssay(Served):
    """One that `assay serve` runs. output: what it prints."""

    process: "subprocess.Popen[str]"
    output: Path


def filled(uri: str) -> Folder:
    """A store of five models."""
    store = open_store(uri)
    put(store, "sums", seed=0)
    put(store, "sums", seed=1, width=16)
    put(store, "mazes", "dt_net_2d")
    put(store, "walk", task="walking")
    put_classifier(store, "digits")
    put_classifier(store, "photos", channels=3, side=-1)
    return store


@pytest.fixture(scope="package")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedByAssay]:
    """As a user starts it: behind HAProxy where that is installed, else behind Serve's own proxy."""
    folder = tmp_path_factory.mktemp("served")
    store, config, printed = filled(str(folder / "store")), folder / "serve.yaml", folder / "output"
    config.write_text(json.dumps(SETTINGS.model_dump(mode="json")))
    command = [sys.executable, "-m", "service", "serve", "--store", store.uri, "--config", str(config)]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    with (
        open(printed, "w") as output,
        started(command, stdout=output, stderr=output, env=environment) as process,
    ):
        wait_for(lambda: "serving 5 model(s)" in printed.read_text(), process)
        yield ServedByAssay(f"{HOST}:{SETTINGS.http.port}", "", store, process, printed)
        process.terminate()
        process.wait(PATIENCE_SECONDS)


@pytest.fixture(scope="package")
def served_over_grpc(ray_session: None) -> Iterator[Served]:
    """Behind Serve's own proxy, without attacks."""
    assert OVER_GRPC.grpc is not None
    with tempfile.TemporaryDirectory(prefix="assay-") as folder:  # a short path, as for sockets
        store, host = filled(f"{folder}/store"), OVER_GRPC.http.host
        app.start(OVER_GRPC, store.uri, app.environment(OVER_GRPC, folder))
        yield Served(f"{host}:{OVER_GRPC.http.port}", f"{host}:{OVER_GRPC.grpc.port}", store)
        serve.shutdown()
