"""One line for each request, whoever answered it: method, path (which names the model), key, trace, status,
milliseconds."""

import logging
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.http.bodies import OWNER
from serving.http.traces import NONE, TRACE

logger = logging.getLogger("ray.serve")

LONGEST = 200  # characters of a path
NO_KEY = "-"
LEFT = 499  # of a client that left before it was answered


class AccessLog:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), LEFT

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            log(scope["method"], scope["path"], scope.get(OWNER, NO_KEY), scope.get(TRACE, NONE), status, began)


def log(method: str, path: str, key: str, trace: str, status: int | str, began: float) -> None:
    """began: by time.perf_counter."""
    path = path.encode("unicode_escape").decode()[:LONGEST]  # no line can be forged
    took = 1000 * (time.perf_counter() - began)
    logger.info("%s %s key %s trace %s: %s in %.1f ms", method, path, key, trace, status, took)
