"""The middleware in front of the application, in every HTTP server of Serve, and how it gets the settings.

These servers are processes of Serve: its proxies, or the replicas behind HAProxy. Serve calls `middlewares` there.
"""

import os
from collections.abc import Mapping

from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from service.errors import ClusterError
from serving.grpc import connections as grpc_connections
from serving.http import connections
from serving.http.access_log import AccessLog
from serving.http.auth import KeyAuth
from serving.http.bodies import Bodies
from serving.http.errors import JsonErrors
from serving.http.health import Liveness
from serving.http.origins import Origins
from serving.http.places import Places
from serving.http.protocol import HEADER_LENGTH
from serving.http.settings import ServeSettings
from serving.http.streams import SentParts
from serving.http.traces import HEADER, Traces
from serving.pages.files import Pages

SETTINGS = "ASSAY_SERVE_SETTINGS"  # the sections that the middleware needs, in JSON; of keys the hashes
SECTIONS = {"http", "grpc", "connections", "keys", "queue", "replicas", "limits", "logging"}
CALLBACK = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"  # Serve's variable for the import path of such a function
CALLBACK_PATH = "serving.http.middleware.middlewares"


def environment(settings: ServeSettings) -> Mapping[str, str]:
    """The variables that `middlewares` reads."""
    return {CALLBACK: CALLBACK_PATH, SETTINGS: settings.model_dump_json(include=SECTIONS)}


def middlewares() -> list[Middleware]:
    """The last one is outermost: of a request without a key nothing is read.

    Also bounds the connections of the server that calls it, and of its gRPC server, which it does before they listen.
    """
    settings = given_settings()
    connections.install(settings.connections)
    if settings.grpc:
        grpc_connections.install(settings)
    http, keys = settings.http, settings.keys
    cors = Middleware(
        CORSMiddleware,
        allow_origins=http.origins,
        allow_methods=("GET", "POST"),
        allow_headers=("Authorization", "Content-Type", "Content-Encoding", HEADER_LENGTH, HEADER),
        expose_headers=("Retry-After", HEADER_LENGTH, HEADER),
    )
    at_once, waiting = settings.queue.ongoing * settings.replicas.max, settings.queue.waiting
    return [
        Middleware(JsonErrors),
        Middleware(SentParts),
        *([Middleware(Places, at_once=at_once, waiting=waiting)] if SETTINGS in os.environ else []),
        Middleware(Bodies, limit=settings.limits.body_bytes, connections=settings.connections),
        *([Middleware(KeyAuth, keys=keys)] if keys else []),
        Middleware(Pages),
        Middleware(Origins, hosts=http.names, origins=http.origins),
        *([cors] if http.origins else []),
        Middleware(Liveness),
        Middleware(Traces),
        *([Middleware(AccessLog)] if settings.logging.access else []),
    ]


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
