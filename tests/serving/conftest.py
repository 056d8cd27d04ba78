"""One Serve application for all tests of this folder that speak HTTP, and another for those that speak gRPC.

Serve runs once in a cluster: where a module needs the other application, it is started anew.
"""

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
    Logging,
    Models,
    Queue,
    ServeSettings,
)
from tests.ports import free_port
from tests.serving.models import put, put_classifier

SETTINGS = ServeSettings(
    http=Http(port=free_port()),
    batching=Batching(parallel=2),
    models=Models(loaded=3, refresh_seconds=0),
    limits=Limits(body_mb=4, streams=2, pixels=100_000),
    attacks=Attacks(queue=Queue(ongoing=2, waiting=1, retry_after_seconds=3), passes=200_000, seconds=60, rows=40),
    connections=Connections(body_seconds=1, header_seconds=1, open=256, bodies_mb=32),
    logging=Logging(level="ERROR"),
)


OVER_GRPC = SETTINGS.model_copy(update={"http": Http(port=free_port()), "grpc": Grpc(port=free_port())})


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


class Serve:
    """Serve of this process, with one application at a time."""

    def __init__(self, folder: Path) -> None:
        self._store, self._folder = open_store(str(folder / "store")), folder
        put(self._store, "sums", seed=0)
        put(self._store, "sums", seed=1, width=16)
        put(self._store, "mazes", "dt_net_2d")
        put(self._store, "walk", task="walking")
        put_classifier(self._store, "digits")
        put_classifier(self._store, "photos", channels=3, side=-1)
        self._settings: ServeSettings | None = None

    def run(self, settings: ServeSettings) -> Served:
        if settings is not self._settings:
            self.end()
            app.start(settings, self._store.uri, app.environment(settings, str(self._folder)))
            self._settings = settings
        host = settings.http.host
        grpc_address = f"{host}:{settings.grpc.port}" if settings.grpc else ""
        return Served(f"{host}:{settings.http.port}", grpc_address, self._store)

    def end(self) -> None:
        if self._settings is not None:
            serve.shutdown()


@pytest.fixture(scope="package")
def running(ray_session: None) -> Iterator[Serve]:
    with tempfile.TemporaryDirectory(prefix="assay-") as folder:  # a short path, as for sockets
        running = Serve(Path(folder))
        yield running
        running.end()


@pytest.fixture(scope="module")
def served(running: Serve) -> Served:
    """Behind HAProxy where that is installed, else behind Serve's own proxy."""
    return running.run(SETTINGS)
