"""Two `assay serve` for the tests of this folder: behind HAProxy, and with keys, HTTPS and gRPC behind Serve's own."""

import json
import os
import ssl
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx
import pytest
import tritonclient.http as triton
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from service.store import Folder, open_store
from serving.http.keys import new_key
from serving.http.settings import (
    Attacks,
    Batching,
    Connections,
    Grpc,
    Http,
    Limits,
    Logging,
    Metrics,
    Models,
    Queue,
    Replicas,
    ServeSettings,
    Tls,
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
GMACS_OF_PASS = 3.3e-5  # of one image through the classifier of the tests, at most
LIMITS_OF_KEYS: dict[str, dict[str, Any]] = {
    "alice": {"requests_per_second": 1000.0, "burst": 1000},
    "bob": {"requests_per_second": 0.5, "burst": 3},
    "mallory": {"attack_gmacs_per_hour": 400 * GMACS_OF_PASS},
}


class Bearer(triton.InferenceServerClientPlugin):  # type: ignore[misc]  # it has no types
    """Sends a key with each request of tritonclient, over HTTP or gRPC."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._headers = headers

    def __call__(self, request: Any) -> None:
        request.headers = {**self._headers, **(request.headers or {})}


@dataclass(frozen=True)
class Served:
    """A running `assay serve`. address: host:port. store: where its models are. output: what it prints."""

    address: str
    store: Folder
    process: "subprocess.Popen[str]"
    output: Path

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    @property
    def headers(self) -> dict[str, str]:
        """What each request needs."""
        return {}

    @property
    def trusting(self) -> ssl.SSLContext | None:
        """What connections are made by; None: plain text."""
        return None

    def client(self, concurrency: int = 1) -> triton.InferenceServerClient:
        return triton.InferenceServerClient(self.address, concurrency=concurrency, network_timeout=60)

    def http(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers=self.headers, verify=self.trusting or False, timeout=60)


@dataclass(frozen=True)
class Guarded(Served):
    """One that asks for keys. certificate: to trust it by. keys: name -> key; by itself, clients are Alice's."""

    grpc_address: str
    metrics_port: int
    certificate: str
    keys: dict[str, str]

    @property
    def url(self) -> str:
        return f"https://{self.address}"

    @property
    def headers(self) -> dict[str, str]:
        return self.headers_of("alice")

    @property
    def trusting(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.certificate)

    def headers_of(self, name: str) -> dict[str, str]:
        return {"authorization": f"Bearer {self.keys[name]}"}

    def client_without_key(self, concurrency: int = 1) -> triton.InferenceServerClient:
        return triton.InferenceServerClient(
            self.address,
            concurrency=concurrency,
            network_timeout=60,
            ssl=True,
            ssl_options={"ca_certs": self.certificate},
            ssl_context_factory=lambda: self.trusting,
        )

    def client(self, concurrency: int = 1) -> triton.InferenceServerClient:
        client = self.client_without_key(concurrency)
        client.register_plugin(Bearer(self.headers))
        return client

    def http_of(self, name: str | None) -> httpx.Client:
        """name: whose key is sent; None: none is."""
        headers = self.headers_of(name) if name else {}
        return httpx.Client(base_url=self.url, headers=headers, verify=self.trusting, timeout=60)


def signed(folder: Path) -> tuple[str, str]:
    """A certificate for 127.0.0.1, signed by itself, and its private key: PEM files."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "assay")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "certificate.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8
    secret = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(secret)
    return str(folder / "certificate.pem"), str(folder / "key.pem")


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


@contextmanager
def serving(folder: Path, settings: ServeSettings) -> Iterator[tuple[Folder, "subprocess.Popen[str]", Path]]:
    """`assay serve`, as a user starts it: its store, its process, and what it prints."""
    store, config, printed = filled(str(folder / "store")), folder / "serve.yaml", folder / "output"
    config.write_text(json.dumps(settings.model_dump(mode="json")))
    command = [sys.executable, "-m", "service", "serve", "--store", store.uri, "--config", str(config)]
    command += ["--metrics-port", str(settings.metrics.port)]
    environment = {**os.environ, "RAY_metrics_report_interval_ms": "1000", "PYTHONUNBUFFERED": "1"}
    environment.pop("RAY_ADDRESS", None)
    with (
        open(printed, "w") as output,
        started(command, stdout=output, stderr=output, env=environment) as process,
    ):
        wait_for(lambda: "serving 5 model(s)" in printed.read_text(), process)
        yield store, process, printed
        process.terminate()
        process.wait(PATIENCE_SECONDS)


@pytest.fixture(scope="package")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Behind HAProxy where that is installed, else behind Serve's own proxy."""
    with serving(tmp_path_factory.mktemp("served"), SETTINGS) as (store, process, output):
        yield Served(f"{HOST}:{SETTINGS.http.port}", store, process, output)


@pytest.fixture(scope="package")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """Behind Serve's own proxy, with keys, HTTPS and gRPC."""
    folder, port, grpc_port, metrics_port = tmp_path_factory.mktemp("guarded"), free_port(), free_port(), free_port()
    certificate, secret = signed(folder)
    tokens, entries = {}, []
    for name, changes in LIMITS_OF_KEYS.items():
        tokens[name], key = new_key(name)
        entries.append(key.model_copy(update=changes))
    settings = SETTINGS.model_copy(
        update={
            "http": Http(port=port, tls=Tls(certificate=certificate, private_key=secret)),
            "grpc": Grpc(port=grpc_port),
            "metrics": Metrics(port=metrics_port),
            "keys": tuple(entries),
            "logging": Logging(level="INFO", access=True),
        }
    )
    with serving(folder, settings) as (store, process, output):
        at = f"127.0.0.1:{grpc_port}"
        yield Guarded(f"127.0.0.1:{port}", store, process, output, at, metrics_port, certificate, tokens)
