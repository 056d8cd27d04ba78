"""The middleware in front of the application, in every HTTP server of Serve, and how it gets the settings.

These servers are processes of Serve: its proxies, or the replicas behind HAProxy. Serve calls `middlewares` there.
"""

import json
import os
from collections.abc import Mapping

from starlette.middleware import Middleware

from service.errors import ClusterError
from serving.http.auth import KeyAuth
from serving.http.body_limit import BodyLimit
from serving.http.settings import Key, ServeSettings

BODY_LIMIT = "ASSAY_BODY_LIMIT_BYTES"
KEYS = "ASSAY_KEYS"  # as in the settings, in JSON: hashes and limits
CALLBACK = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"  # Serve's variable for the import path of such a function
CALLBACK_PATH = "serving.http.middleware.middlewares"


def environment(settings: ServeSettings) -> Mapping[str, str]:
    """The variables that `middlewares` reads."""
    return {
        CALLBACK: CALLBACK_PATH,
        BODY_LIMIT: str(settings.limits.body_bytes),
        KEYS: json.dumps([key.model_dump() for key in settings.keys]),
    }


def middlewares() -> list[Middleware]:
    """The last one is outermost: of a request without a key nothing is read."""
    limit, keys = int(os.environ.get(BODY_LIMIT, ServeSettings().limits.body_bytes)), _keys()
    return [Middleware(BodyLimit, limit=limit), *([Middleware(KeyAuth, keys=keys)] if keys else [])]


def check_keys_required(settings: ServeSettings) -> None:
    """ClusterError where Serve was started without the keys of the settings, so that its servers would admit anybody.

    Called in a replica, which has its environment from where the HTTP servers have theirs.
    """
    if settings.keys and (os.environ.get(CALLBACK) != CALLBACK_PATH or _keys() != settings.keys):
        raise ClusterError(
            "Serve does not require the keys of the settings",
            f"every node needs {CALLBACK}={CALLBACK_PATH} and {KEYS}=[{{...}}], the keys as JSON, in its environment",
        )


def _keys() -> tuple[Key, ...]:
    return ServeSettings.model_validate_json(f'{{"keys": {os.environ.get(KEYS, "[]")}}}').keys
