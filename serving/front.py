"""What stands in front of the application in every HTTP server of Serve, and how it learns of the settings.

These servers are Serve's own processes: its proxies, or the replicas behind HAProxy. Serve calls `middlewares` there.
"""

import json
import os
from collections.abc import Mapping

from starlette.middleware import Middleware

from serving.edge import Edge
from serving.gate import Gate
from serving.settings import ServeSettings

BODY_LIMIT = "ASSAY_BODY_LIMIT_BYTES"
KEYS = "ASSAY_KEYS"  # as in the settings, in JSON: hashes and limits


def environment(settings: ServeSettings) -> Mapping[str, str]:
    """The variables that `middlewares` reads."""
    return {
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serving.front.middlewares",
        BODY_LIMIT: str(settings.limits.body_bytes),
        KEYS: json.dumps([key.model_dump() for key in settings.keys]),
    }


def middlewares() -> list[Middleware]:
    """The last one is outermost: who may not come in is not listened to."""
    limit = int(os.environ.get(BODY_LIMIT, ServeSettings().limits.body_bytes))
    keys = ServeSettings.model_validate_json(f'{{"keys": {os.environ.get(KEYS, "[]")}}}').keys
    return [Middleware(Edge, limit=limit), *([Middleware(Gate, keys=keys)] if keys else [])]
