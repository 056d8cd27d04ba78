"""The Serve application, and `assay serve`: start it, say where it is, stop it."""

import json
import logging
import math
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray import serve as ray_serve

from service import models
from service.cluster.connection import connect
from service.errors import ClusterError, InputError
from service.models import ModelCard
from service.store import open_store
from serving.http import attack_server, middleware
from serving.http import settings as settings_of
from serving.http.attack_server import AttackServer
from serving.http.server import Server
from serving.http.settings import LOAD_SECONDS, ServeSettings

NAME = "assay"
CONTROLLER = "SERVE_CONTROLLER_ACTOR"  # as Serve names it, in its namespace "serve"


def build(settings: ServeSettings, store_uri: str) -> ray_serve.Application:
    """The application: one deployment from HTTP to the models of the store, and behind it one that attacks them."""
    attacks = None
    if settings.attacks.enabled:
        of_attacks = settings.of_attacks()
        attacks = _deployment(attack_server.NAME, AttackServer, of_attacks).bind(of_attacks, store_uri)
    return _deployment("models", Server, settings).bind(settings, store_uri, attacks)


def _deployment(name: str, replica: type, settings: ServeSettings) -> ray_serve.Deployment:
    replicas, queue = settings.replicas, settings.queue
    scaled: dict[str, Any] = {"num_replicas": replicas.min}
    if replicas.min < replicas.max:
        scaled = {"autoscaling_config": {
            "min_replicas": replicas.min,
            "max_replicas": replicas.max,
            "target_ongoing_requests": replicas.target_ongoing,
            "upscale_delay_s": replicas.upscale_seconds,
            "downscale_delay_s": replicas.downscale_seconds,
            "look_back_period_s": LOAD_SECONDS,
        }}  # fmt: skip
    deployment: ray_serve.Deployment = ray_serve.deployment(
        name=name,
        ray_actor_options={"num_cpus": replicas.cpus, "num_gpus": replicas.gpus},
        max_ongoing_requests=queue.ongoing,
        max_queued_requests=queue.waiting,
        backpressure_config={"status_code": 503, "retry_after_s": queue.retry_after_seconds},
        graceful_shutdown_wait_loop_s=0.5,
        graceful_shutdown_timeout_s=10,
        health_check_period_s=10,
        health_check_timeout_s=30,
        max_constructor_retry_count=3,
        logging_config={"log_level": settings.logging.level, "enable_access_log": settings.logging.access},
        **scaled,
    )(replica)
    return deployment


def lacking(settings: ServeSettings, cluster: Mapping[str, float]) -> str | None:
    """What the cluster has too little of to start, in one sentence: Serve would wait for it without a word.

    cluster: its resources, by Ray's names.
    """
    parts = [settings.replicas, *([settings.attacks.replicas] if settings.attacks.enabled else [])]
    for name, unit, each in (("CPU", "CPU cores", "cpus"), ("GPU", "GPUs", "gpus")):
        needed = sum(part.min * float(getattr(part, each)) for part in parts)
        if needed > (there := cluster.get(name, 0)):
            return f"the endpoints need {needed:g} {unit}, and Ray has {there:g}"
    return None


def environment(settings: ServeSettings, folder: str) -> Mapping[str, str]:
    """What the processes of Serve read from their environment: to be set before Ray starts them.

    folder: for the sockets of HAProxy; by default all users of a machine would share one.
    """
    variables = dict(middleware.environment(settings))
    if settings.haproxy:
        variables |= {
            "RAY_SERVE_ENABLE_HA_PROXY": "1",
            "RAY_SERVE_HAPROXY_NBTHREAD": str(settings.haproxy.threads),
            "RAY_SERVE_HAPROXY_STATS_PORT": str(settings.haproxy.stats_port),
            "RAY_SERVE_HAPROXY_METRICS_PORT": str(settings.haproxy.metrics_port),
            "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": f"{folder}/haproxy.cfg",
            "RAY_SERVE_HAPROXY_SOCKET_PATH": f"{folder}/admin.sock",
            "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": f"{folder}/metrics.sock",
            "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": folder,
            "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": f"{folder}/server-state",
        }
    return variables


def start(settings: ServeSettings, store_uri: str, variables: Mapping[str, str]) -> None:
    """Run the application on the Ray that this process is connected to, and return when it answers.

    variables: the environment of Serve's processes, on whatever node. A Serve that runs already keeps its own.
    """
    http = settings.http
    if settings.keys and _is_running():
        raise ClusterError(
            "Serve runs on this cluster already, and would not ask for these keys", "end it first: `serve shutdown`"
        )
    try:
        ray_serve.start(
            proxy_location="EveryNode" if http.public else "HeadOnly",
            http_options={
                "host": http.host,
                "port": http.port,
                "request_timeout_s": http.request_seconds,
                "keep_alive_timeout_s": http.keep_alive_seconds,
                "ssl_certfile": http.tls and http.tls.certificate,
                "ssl_keyfile": http.tls and http.tls.private_key,
            },
            controller_options={"runtime_env": {"env_vars": dict(variables)}},
            logging_config={"log_level": settings.logging.level, "enable_access_log": settings.logging.access},
        )
        ray_serve.run(build(settings, store_uri), name=NAME, route_prefix="/")
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise ClusterError(f"the endpoints do not start at {http.host}:{http.port}: {reason}") from error


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
    without_keys: bool = False,
) -> None:
    """`assay serve`: every model of the store over HTTP until SIGINT or SIGTERM.

    config: a settings file such as configs/serve.yaml. host, port: instead of those in it. without_keys: also where
    other machines may reach it.
    """
    settings = settings_of.load(config).listening(host, port)
    if settings.http.public and not settings.keys and not without_keys:
        raise InputError(
            f"http.host: {settings.http.host} is public, and there are no keys: everybody could use the models",
            "make a key with `assay serve --new-key NAME`, or say --without-keys",
        )
    models_of = open_store(store)
    cards = models.list_models(models_of)
    here = "RAY_ADDRESS" not in os.environ
    if here:
        check_free(settings.http.host, settings.http.port)
    logging.getLogger("ray.serve").setLevel(settings.logging.level)
    with tempfile.TemporaryDirectory(prefix="assay-") as sockets, connect():
        cluster = ray.cluster_resources()  # type: ignore[no-untyped-call]
        if few := lacking(settings, cluster):
            if here:
                raise ClusterError(
                    few, "lower the cpus of replicas and attacks.replicas, or set attacks.enabled: false"
                )
            print(f"{few}: waiting for the cluster to grow", flush=True)
        start(settings, models_of.uri, environment(settings, sockets))
        stopped = threading.Event()
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, lambda signum, frame: stopped.set())  # here: Ray puts up handlers of its own
        if here:
            (node,) = ray.nodes()  # type: ignore[no-untyped-call]
            print(f"metrics for Prometheus at http://127.0.0.1:{node['MetricsExportPort']}/metrics", flush=True)
        print(greeting(settings, cards), flush=True)
        stopped.wait()
        print("stopping", flush=True)
        ray_serve.delete(NAME)  # lets the requests under way finish
        if not here and not ray_serve.status().applications:  # on a cluster others may serve too
            ray_serve.shutdown()  # type: ignore[no-untyped-call]


def check_free(host: str, port: int) -> None:
    """ClusterError if the port cannot be listened at: Serve would say so in a log only."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ClusterError(f"cannot listen at {host}:{port}: {error.strerror or error}", "try --port") from error


def greeting(settings: ServeSettings, cards: Sequence[ModelCard]) -> str:
    """Where the endpoints are, and one command to try."""
    host = settings.http.host if ":" not in settings.http.host else f"[{settings.http.host}]"
    url = f"{'https' if settings.http.tls else 'http'}://{host}:{settings.http.port}"
    if not cards:
        return f"serving at {url}/v2: the store holds no models yet; new ones are served as soon as they are there"
    names = dict.fromkeys(card.name for card in cards)
    key = ' -H "Authorization: Bearer $ASSAY_KEY"' if settings.keys else ""
    return f"serving {len(names)} model(s) at {url}/v2; try\n\n  {_example(url, cards[-1])}{key}\n"


def _example(url: str, card: ModelCard) -> str:
    path = f"{url}/v2/models/{card.name}"
    if card.task == "classification":
        return f"curl -s '{path}/infer?outputs=prediction' --data-binary @photo.png -H 'Content-Type: image/png'"
    if len(card.inputs) != 1 or card.inputs[0].datatype != "FP32" or len(card.inputs[0].shape) != 3:
        return f"curl -s {path}"
    spec = card.inputs[0]
    shape = [1, *(8 if size == -1 else size for size in spec.shape[1:])]
    data = [0.5 if index % 3 else -0.5 for index in range(math.prod(shape))]
    body = {"inputs": [{"name": spec.name, "datatype": spec.datatype, "shape": shape, "data": data}]}
    return f"curl -s {path}/infer -d '{json.dumps(body)}'"
