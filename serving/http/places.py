"""How many requests are passed on at the same time: as many as the replicas take. The others wait their turn here.

Serve's router has no queue: it looks for a free place again and again, ever more seldom, and where many wait it spends
its time on looking. So what it could not place at once waits here, first come, first served. What is too much gets 503.
"""

import asyncio
from collections import Counter

from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import BusyError
from serving.http.bodies import OWNER, SERVE_PATHS, SHARE
from serving.http.errors import refuse


class Places:
    """ASGI middleware. at_once: requests that are passed on. waiting: that may wait. Of a key half of them at most."""

    def __init__(self, app: ASGIApp, at_once: int, waiting: int) -> None:
        self._app = app
        self._places = asyncio.Semaphore(at_once)
        self._most = at_once + waiting
        self._here = 0
        self._of_key: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(SERVE_PATHS):
            await self._app(scope, receive, send)
            return
        key = scope.get(OWNER)
        if self._here == self._most or (key and self._of_key[key] >= SHARE * self._most):
            await refuse(BusyError("too many requests wait; send it again later"), receive, send)
            return
        self._here += 1
        self._of_key[key or ""] += 1
        try:
            async with self._places:
                await self._app(scope, receive, send)
        finally:
            self._here -= 1
            self._of_key[key or ""] -= 1
