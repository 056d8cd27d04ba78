"""One Serve application for all tests of this folder that speak HTTP or gRPC."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

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
    grpc=Grpc(port=free_port()),
    batching=Batching(parallel=2),
    models=Models(loaded=3, refresh_seconds=0),
    limits=Limits(body_mb=4, streams=2, pixels=100_000),
    attacks=Attacks(queue=Queue(ongoing=2, waiting=1, retry_after_seconds=3), passes=200_000, seconds=60, rows=40),
    connections=Connections(body_seconds=1, header_seconds=1, open=256, bodies_mb=32),
    logging=Logging(level="ERROR"),
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


@pytest.fixture(scope="package")
def served(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    store = open_store(str(tmp_path_factory.mktemp("serve") / "store"))
    put(store, "sums", seed=0)
    put(store, "sums", seed=1, width=16)
    put(store, "mazes", "dt_net_2d")
    put(store, "walk", task="walking")
    put_classifier(store, "digits")
    put_classifier(store, "photos", channels=3, side=-1)
    app.start(SETTINGS, store.uri, app.environment(SETTINGS, tempfile.gettempdir()))
    host, grpc = SETTINGS.http.host, SETTINGS.grpc
    assert grpc is not None
    yield Served(f"{host}:{SETTINGS.http.port}", f"{host}:{grpc.port}", store)
    serve.shutdown()
