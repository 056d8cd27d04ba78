"""Who comes in: every HTTP server of Serve asks for a key, and whether it has requests left, before it reads a body."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from ray.util.metrics import Counter
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import AssayError, OverLimitError
from serving.http.body_limit import refuse
from serving.http.keys import HEADER, Keyring
from serving.http.quotas import Bucket, Ledger
from serving.http.settings import Key

logger = logging.getLogger("ray.serve")

OPEN = ("v2/health/live", "v2/health/ready", "-/healthz")
NOBODY = "-"  # strangers share one label
AHEAD_SECONDS = 0.1  # a key's requests of so long are taken at once: a way to the ledger costs milliseconds
FRESH_SECONDS = 1.0  # and if they do not come, they are forgotten


class Takes(Protocol):
    async def take(self, bucket: Bucket, amount: float, more: int) -> tuple[float, float]: ...


def is_open(scope: Scope) -> bool:
    """Whether a request needs no key: the health of the server, asked for without a body."""
    headers = Headers(scope=scope)
    body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
    return scope["method"] in ("GET", "HEAD") and scope["path"].strip("/") in OPEN and not body


class Allowance:
    """The requests of one key that this gate may let in without asking."""

    def __init__(self, key: Key, ledger: Takes, clock: Callable[[], float] = time.monotonic) -> None:
        self._bucket, self._ledger, self._clock = Bucket.of_requests(key), ledger, clock
        self._ahead = int(AHEAD_SECONDS * key.requests_per_second)
        self._left, self._fresh_until, self._closed_until = 0.0, 0.0, 0.0
        self._one_at_a_time = asyncio.Lock()  # those who come meanwhile wait for the same answer

    async def spend(self) -> float:
        """Let one request in: 0. Else the seconds after which one would be; until then nobody asks again."""
        async with self._one_at_a_time:
            if (now := self._clock()) < self._closed_until:
                return self._closed_until - now
            if self._left < 1 or now > self._fresh_until:
                self._left, seconds = await self._ledger.take(self._bucket, 1, self._ahead)
                now = self._clock()
                self._fresh_until, self._closed_until = now + FRESH_SECONDS, now + seconds
                if seconds:
                    return seconds
            self._left -= 1
            return 0.0


class Gate:
    """ASGI middleware. A stranger gets 401 and a key without requests left 429, at any path."""

    def __init__(self, app: ASGIApp, keys: Sequence[Key], ledger: Takes | None = None) -> None:
        self._app = app
        ledger = ledger or Ledger()
        self._ring = Keyring(keys)
        self._allowances = {key.name: Allowance(key, ledger) for key in keys}
        self._refusals = Counter("assay_refusals", "Requests refused at the gate, by HTTP status.", ("status", "key"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":  # nothing here speaks it
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http" or is_open(scope):
            await self._app(scope, receive, send)
            return
        key = None
        try:
            key = self._ring.holder(Headers(scope=scope).getlist(HEADER))
            if seconds := await self._allowances[key.name].spend():
                raise OverLimitError(
                    f"the key has used its {key.burst:,} requests at once and {key.requests_per_second:g} a second",
                    seconds,
                )
        except AssayError as error:
            name = key.name if key else NOBODY
            self._refusals.inc(tags={"status": str(error.http_status), "key": name})
            logger.info("refused %s %s: %s, key %s", scope["method"], scope["path"], error.http_status, name)
            await refuse(error, receive, send)
            return
        await self._app(scope, receive, send)
