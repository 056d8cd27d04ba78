"""One line for each request, whoever answered it: method, path (which names the model), key, status, milliseconds."""

import logging
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.http.bodies import OWNER

logger = logging.getLogger("ray.serve")

LONGEST = 200  # characters of a path
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
            path = scope["path"].encode("unicode_escape").decode()[:LONGEST]  # no line can be forged
            took = 1000 * (time.perf_counter() - began)
            logger.info("%s %s key %s: %d in %.1f ms", scope["method"], path, scope.get(OWNER, "-"), status, took)
