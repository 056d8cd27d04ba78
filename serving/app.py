"""The Serve application, and `assay serve`: start it, say where it is, stop it."""

import importlib
import json
import logging
import os
import re
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, cast

import ray
from ray import serve as ray_serve
from ray.serve.schema import ProxyStatus

from service import models
from service.cluster import embedded
from service.cluster.connection import LOOPBACK, connect
from service.errors import ClusterError, InputError
from service.models import ModelCard
from service.store import open_store
from serving import haproxy
from serving.deployments import attack_server, memory
from serving.deployments.attack_server import AttackServer
from serving.deployments.server import Server
from serving.grpc import middleware as middleware_of_grpc
from serving.http import middleware
from serving.http.settings import LOAD_SECONDS, ServeSettings, load_settings
from serving.kinds import KINDS

NAME = "assay"
CONTROLLER = "SERVE_CONTROLLER_ACTOR"  # as Serve names it, in its namespace "serve"
PROXY_SECONDS = 300.0


def build(settings: ServeSettings, store_uri: str) -> ray_serve.Application:
    """The application: one deployment from HTTP to the models of the store, and behind it one for attacks."""
    attacks = None
    if settings.attacks.enabled:
        attack_settings = settings.for_attacks()
        attacks = _deployment(attack_server.NAME, AttackServer, attack_settings).bind(attack_settings, store_uri)
    return _deployment("models", _server(settings), settings).bind(settings, store_uri, attacks)


def _server(settings: ServeSettings) -> type[Server]:
    """The class of a replica. ClusterError if gRPC is asked for and its messages are not installed."""
    if settings.grpc is None:
        return Server
    try:
        grpc_server = importlib.import_module("serving.deployments.grpc_server")
    except ModuleNotFoundError as error:
        raise ClusterError(f"grpc needs the package {error.name}", "install `assay[grpc]`, on every node") from error
    return cast(type[Server], grpc_server.GrpcServer)


def _deployment(name: str, replica: type, settings: ServeSettings) -> ray_serve.Deployment:
    replicas, queue = settings.replicas, settings.queue
    scaling: dict[str, Any] = {"num_replicas": replicas.min}
    if replicas.min < replicas.max:
        scaling = {"autoscaling_config": {
            "min_replicas": replicas.min,
            "max_replicas": replicas.max,
            "target_ongoing_requests": replicas.target_ongoing,
            "upscale_delay_s": replicas.upscale_seconds,
            "downscale_delay_s": replicas.downscale_seconds,
            "look_back_period_s": LOAD_SECONDS,
        }}  # fmt: skip
    deployment: ray_serve.Deployment = ray_serve.deployment(
        name=name,
        ray_actor_options={
            "num_cpus": replicas.cpus,
            "num_gpus": replicas.gpus,
            "runtime_env": {"env_vars": {**memory.ONE_HEAP, **haproxy.OF_REPLICAS}},
        },
        max_ongoing_requests=queue.ongoing,
        max_queued_requests=queue.waiting,
        backpressure_config={"status_code": 503, "retry_after_s": queue.retry_after_seconds},
        graceful_shutdown_wait_loop_s=0.5,
        graceful_shutdown_timeout_s=10,
        health_check_period_s=10,
        health_check_timeout_s=30,
        max_constructor_retry_count=3,
        logging_config={"log_level": settings.logging.level, "enable_access_log": False},
        **scaling,
    )(replica)
    return deployment


def shortage(settings: ServeSettings, cluster: Mapping[str, float]) -> str | None:
    """What the cluster has too little of to start, in one sentence: Serve would wait for it and print nothing.

    cluster: its resources, by Ray's names.
    """
    parts = [settings.replicas, *([settings.attacks.replicas] if settings.attacks.enabled else [])]
    needs = {
        "CPU": ("CPU cores", sum(part.min * part.cpus for part in parts)),
        "GPU": ("GPUs", sum(part.min * part.gpus for part in parts)),
    }
    for name, (unit, needed) in needs.items():
        if needed > (available := cluster.get(name, 0)):
            return f"the endpoints need {needed:g} {unit}, and Ray has {available:g}"
    return None


def environment(settings: ServeSettings, folder: str, own_ray: bool = True) -> Mapping[str, str]:
    """The variables that the processes of Serve read: to be set before Ray starts them.

    folder: for the sockets of HAProxy. own_ray: Ray runs on this machine alone. ClusterError as haproxy.reason_against.
    """
    variables = dict(middleware.environment(settings))
    # how long Serve's router waits before it looks for a place again: its default of 0.5 s leaves replicas idle
    variables["RAY_SERVE_ROUTER_RETRY_MAX_BACKOFF_S"] = "0.05"
    # how often replicas and proxies hand their counts to Ray, which exports them every ten seconds
    variables["RAY_SERVE_METRICS_EXPORT_INTERVAL_MS"] = "1000"
    # how often the controller looks after all; at its default of 0.1 s it takes a fourth of what an idle server takes
    variables["RAY_SERVE_CONTROL_LOOP_INTERVAL_S"] = "0.25"
    # a proxy that a busy machine has not started after Serve's 5 s is killed, and its successor may fare no better
    variables["RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S"] = "60"
    if haproxy.reason_against(settings, own_ray) is None:
        variables |= haproxy.environment(settings, folder, own_ray)
    return variables


def start(settings: ServeSettings, store_uri: str, variables: Mapping[str, str]) -> None:
    """Run the application on the Ray that this process is connected to, and return when it answers.

    variables: the environment of Serve's processes, on whatever node. A Serve that runs already keeps its own.
    """
    http = settings.http
    if settings.keys and _is_running():
        raise ClusterError(
            "Serve runs on this cluster already, and would not require these keys", "end it first: `serve shutdown`"
        )
    try:
        with suppress(TimeoutError):  # it waits a minute for its proxies, and here more
            ray_serve.start(
                proxy_location="EveryNode" if http.public else "HeadOnly",
                http_options={
                    "host": LOOPBACK if haproxy.PROGRAM_PATH in variables else http.host,  # HAProxy is told itself
                    "port": http.port,
                    "request_timeout_s": http.request_seconds,
                    "keep_alive_timeout_s": http.keep_alive_seconds,
                    "ssl_certfile": http.tls and http.tls.certificate,
                    "ssl_keyfile": http.tls and http.tls.private_key,
                },
                grpc_options=_grpc_options(settings),
                controller_options={"runtime_env": {"env_vars": dict(variables)}},
                logging_config={"log_level": settings.logging.level, "enable_access_log": False},
            )
        ray_serve.run(build(settings, store_uri), name=NAME, route_prefix="/")
        _wait_for_proxies()
    except RuntimeError as error:
        raise ClusterError(f"the endpoints do not start at {http.host}:{http.port}: {_reason(error)}") from error


def _wait_for_proxies() -> None:
    """Until one has started. ClusterError if none does."""
    end = time.monotonic() + PROXY_SECONDS
    while ProxyStatus.HEALTHY not in ray_serve.status().proxies.values():
        if time.monotonic() > end:
            raise ClusterError(f"no proxy of Serve has started within {PROXY_SECONDS:g} s", "see Ray's logs of `serve`")
        time.sleep(0.1)


def _grpc_options(settings: ServeSettings) -> dict[str, Any] | None:
    if settings.grpc is None:
        return None
    return {
        "port": settings.grpc.port,
        "grpc_servicer_functions": [middleware_of_grpc.ADDRESS],
        "request_timeout_s": settings.http.request_seconds,
        "enable_reflection": False,
    }


def _reason(error: RuntimeError) -> str:
    """The last line of the error of a replica, or else of that of Serve."""
    application = ray_serve.status().applications.get(NAME)
    messages = [deployment.message for deployment in application.deployments.values()] if application else []
    text = next((message for message in messages if message), str(error))
    return re.sub(r"^[\w.]+Error: ", "", text.strip().splitlines()[-1])


def _is_running() -> bool:
    try:
        ray.get_actor(CONTROLLER, namespace="serve")
    except ValueError:
        return False
    return True


def serve(
    store: str,
    config: str | None = None,
    host: str | None = None,
    port: int | None = None,
    metrics_port: int | None = None,
    without_keys: bool = False,
    insecure: bool = False,
) -> None:
    """`assay serve`: every model of the store over HTTP until SIGINT or SIGTERM.

    config: a settings file such as configs/serve.yaml. host, port, metrics_port: instead of those in it. without_keys:
    also where other machines may reach it. insecure: as `connect`.
    """
    settings = load_settings(config).listening(host, port, metrics_port)
    if settings.http.public and not settings.keys and not without_keys:
        raise InputError(
            f"http.host: {settings.http.host} is public, and there are no keys: everybody could use the models",
            "make a key with `assay serve --new-key NAME`, or pass --without-keys",
        )
    folder = open_store(store)
    cards = models.list_models(folder)
    own_ray = "RAY_ADDRESS" not in os.environ
    if own_ray:
        check_free(settings.http.host, settings.http.port, "try --port")
        if settings.grpc:
            check_free(settings.http.host, settings.grpc.port, "set another grpc.port in the settings")
        check_free(LOOPBACK, settings.metrics.port, "try --metrics-port")
    logging.getLogger("ray.serve").setLevel(settings.logging.level)
    with (
        tempfile.TemporaryDirectory(prefix="assay-") as sockets,
        connect(insecure=insecure, metrics_port=settings.metrics.port),
    ):
        cluster = ray.cluster_resources()  # type: ignore[no-untyped-call]
        if missing := shortage(settings, cluster):
            if own_ray:
                raise ClusterError(
                    missing, "lower the cpus and gpus of replicas and attacks.replicas, or set attacks.enabled: false"
                )
            print(f"{missing}: waiting for the cluster to grow", flush=True)
        if settings.proxy == "auto" and (reason := haproxy.reason_against(settings, own_ray)):
            print(f"Serve's own proxy is in front, which takes several times the CPU of HAProxy: {reason}", flush=True)
        start(settings, folder.uri, environment(settings, sockets, own_ray))
        stopped = threading.Event()
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, lambda signum, frame: stopped.set())  # only now: Ray has set handlers of its own
        if own_ray:
            print(f"metrics for Prometheus at http://{LOOPBACK}:{settings.metrics.port}/metrics", flush=True)
        print(greeting(settings, cards), flush=True)
        embedded.while_up(stopped.wait)
        print("stopping", flush=True)
        ray_serve.delete(NAME)  # lets the requests under way finish
        if not own_ray and not ray_serve.status().applications:  # a cluster may have other applications
            ray_serve.shutdown()  # type: ignore[no-untyped-call]


def check_free(host: str, port: int, hint: str) -> None:
    """ClusterError if the port cannot be listened at: Ray would write so into a log only."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ClusterError(f"cannot listen at {host}:{port}: {error.strerror or error}", hint) from error


def greeting(settings: ServeSettings, cards: Sequence[ModelCard]) -> str:
    """Where the endpoints are, and one command to try."""
    host = settings.http.host if ":" not in settings.http.host else f"[{settings.http.host}]"
    url = f"{'https' if settings.http.tls else 'http'}://{host}:{settings.http.port}"
    if not cards:
        return f"serving at {url}/v2: the store holds no models yet; new ones are served as soon as they are there"
    names = dict.fromkeys(card.name for card in cards)
    key = ' -H "Authorization: Bearer $ASSAY_KEY"' if settings.keys else ""
    command = f"{_command(url, cards[-1])}{key}"
    over_grpc = f" and, over gRPC, at {host}:{settings.grpc.port}" if settings.grpc else ""
    return f"serving {len(names)} model(s) at {url}/v2{over_grpc}; try them at {url}/ or with\n\n  {command}\n"


def _command(url: str, card: ModelCard) -> str:
    """A request to try: the example of its kind, or the metadata of the model where there is none."""
    path = f"{url}/v2/models/{card.name}"
    example = KINDS[card.task].example_for(card) if card.task in KINDS else None
    if example is None:
        return f"curl -s {path}"
    if example.message is not None:
        return f"curl -s {path}/infer --json '{json.dumps(example.message)}'"
    address = f"{path}/infer?{example.query}" if example.query else f"{path}/infer"
    return f"curl -s '{address}' --data-binary @{example.file} -H 'Content-Type: {example.media_type}'"
