"""What stands in front of the application in every HTTP server of Serve, and how it learns of the settings.

These servers are Serve's own processes: its proxies, or the replicas behind HAProxy. Serve calls `middlewares` there.
"""

import json
import os
from collections.abc import Mapping

from starlette.middleware import Middleware

from service.errors import ClusterError
from serving.http.auth import Gate
from serving.http.body_limit import Edge
from serving.http.settings import Key, ServeSettings

BODY_LIMIT = "ASSAY_BODY_LIMIT_BYTES"
KEYS = "ASSAY_KEYS"  # as in the settings, in JSON: hashes and limits
CALLBACK, HERE = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH", "serving.http.middleware.middlewares"


def environment(settings: ServeSettings) -> Mapping[str, str]:
    """The variables that `middlewares` reads."""
    return {
        CALLBACK: HERE,
        BODY_LIMIT: str(settings.limits.body_bytes),
        KEYS: json.dumps([key.model_dump() for key in settings.keys]),
    }


def middlewares() -> list[Middleware]:
    """The last one is outermost: who may not come in is not listened to."""
    limit, keys = int(os.environ.get(BODY_LIMIT, ServeSettings().limits.body_bytes)), _keys()
    return [Middleware(Edge, limit=limit), *([Middleware(Gate, keys=keys)] if keys else [])]


def check_guarded(settings: ServeSettings) -> None:
    """ClusterError where Serve was started without being told of the keys, so that nobody would be refused in time.

    Asked in a replica, which has its environment from where the HTTP servers have theirs.
    """
    if settings.keys and (os.environ.get(CALLBACK) != HERE or _keys() != settings.keys):
        raise ClusterError(
            "Serve does not ask for the keys of the settings",
            f"every node needs {CALLBACK}={HERE} and {KEYS}=[{{...}}], the keys as JSON, in its environment",
        )


def _keys() -> tuple[Key, ...]:
    return ServeSettings.model_validate_json(f'{{"keys": {os.environ.get(KEYS, "[]")}}}').keys
