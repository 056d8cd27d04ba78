"""The middleware in front of the application, in every HTTP server of Serve, and how it gets the settings.

These servers are processes of Serve: its proxies, or the replicas behind HAProxy. Serve calls `middlewares` there.
"""

import os
from collections.abc import Mapping

from ray import serve
from ray.serve.exceptions import RayServeException
from starlette.middleware import Middleware

from service.errors import ClusterError
from serving.grpc import connections as grpc_connections
from serving.http import connections
from serving.http.pipeline import Pipeline
from serving.http.settings import ServeSettings

SETTINGS = "ASSAY_SERVE_SETTINGS"  # the sections that the middleware needs, in JSON; of keys the hashes
SECTIONS = {"http", "grpc", "connections", "keys", "queue", "replicas", "limits", "logging"}
CALLBACK = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"  # Serve's variable for the import path of such a function
CALLBACK_PATH = "serving.http.middleware.middlewares"


def environment(settings: ServeSettings) -> Mapping[str, str]:
    """The variables that `middlewares` reads."""
    return {CALLBACK: CALLBACK_PATH, SETTINGS: settings.model_dump_json(include=SECTIONS)}


def middlewares() -> list[Middleware]:
    """The pipeline, which is all of it.

    Also bounds the connections of the server that calls it, and of its gRPC server, which it does before they listen.
    """
    settings = given_settings()
    direct, at_once = is_replica(), None
    connections.install(settings.connections, pooled=direct)
    if settings.grpc:
        grpc_connections.install(settings)
    if SETTINGS in os.environ:
        at_once = settings.queue.ongoing * (1 if direct else settings.replicas.max)
    return [Middleware(Pipeline, settings=settings, at_once=at_once, direct=direct)]


def is_replica() -> bool:
    """Whether this process is a replica, to which HAProxy passes requests on, and not a proxy of Serve."""
    try:
        serve.get_replica_context()
    except RayServeException:
        return False
    return True


def check_keys_required(settings: ServeSettings) -> None:
    """ClusterError where Serve was started without the keys of the settings, so that its servers would admit anybody.

    Called in a replica, which has its environment from where the HTTP servers have theirs.
    """
    if settings.keys and (os.environ.get(CALLBACK) != CALLBACK_PATH or given_settings().keys != settings.keys):
        raise ClusterError(
            "Serve does not require the keys of the settings",
            f'every node needs {CALLBACK}={CALLBACK_PATH} and {SETTINGS}={{"keys": [...], ...}}, the settings as JSON, '
            "in its environment",
        )


def given_settings() -> ServeSettings:
    """The settings in the environment.

    Where Serve was started without them, the address is not known, nor the names by which clients may ask.
    """
    return ServeSettings.model_validate_json(os.environ.get(SETTINGS, '{"http": {"host": "0.0.0.0"}}'))
