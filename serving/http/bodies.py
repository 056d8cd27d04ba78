"""The body of a request is read before the request takes a place at a replica: whole, bounded, and in time.

Serve would let a request that has begun wait at the replica for the rest of its body, however long, and hold a body of
any size in memory. This is corrected in the process that holds the client's connection: Serve's own proxy, or the
replica behind HAProxy.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import AssayError, BusyError, TooLargeError, TooSlowError
from serving.http.errors import refuse
from serving.http.settings import Connections

SERVE_PATHS = "/-/"  # Serve's own: its health and its routes, which read no body
OWNER = "assay.owner"  # in a scope: the name of the key, where keys are required
SHARE = 0.5  # of the bodies that are held, those of one owner at most


class Bodies:
    """ASGI middleware. limit: bytes that a body may have, whether it declares its length or comes in chunks."""

    def __init__(self, app: ASGIApp, limit: int, connections: Connections) -> None:
        self._app, self._limit, self._connections = app, limit, connections
        self._held: Counter[str] = Counter()  # bytes by owner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(SERVE_PATHS):
            await self._app(scope, receive, send)
            return
        with self._hold(_owner(scope)) as body:
            try:
                if not await self._read(body, Headers(scope=scope), receive):
                    return  # the client left
            except AssayError as error:
                await refuse(error, receive, send)
                return
            await self._app(scope, _replay(body, receive), send)

    async def _read(self, body: "Body", headers: Headers, receive: Receive) -> bool:
        """Read a body. False: the client left before its end. AssayError: too large, too slow, or no room for it."""
        declared = headers.get("content-length", "")
        if declared.isdigit() and int(declared) > self._limit:
            raise body_too_large(self._limit)
        loop = asyncio.get_running_loop()
        began = loop.time()
        more = True
        while more:
            allowed = self._connections.seconds_for(body.size)
            try:
                async with asyncio.timeout_at(began + allowed):
                    message = await receive()
            except TimeoutError:
                raise TooSlowError(
                    f"the body must come within {self._connections.body_seconds:g} s, or faster than "
                    f"{self._connections.body_kb_per_second:g} KiB/s; {body.size:,} bytes came in {allowed:.0f} s"
                ) from None
            if message["type"] != "http.request":
                return False
            body.append(message.get("body", b""))
            if body.size > self._limit:
                raise body_too_large(self._limit)
            more = message.get("more_body", False)
        return True

    @contextmanager
    def _hold(self, owner: str) -> Iterator["Body"]:
        body = Body(self._held, owner, self._connections.bodies_bytes)
        try:
            yield body
        finally:
            body.release()


class Body:
    """A body, counted with all others that are held. most: bytes of all of them."""

    def __init__(self, held: Counter[str], owner: str, most: int) -> None:
        self._held, self._owner, self._most = held, owner, most
        self._parts: list[bytes] = []
        self.size = 0

    def append(self, part: bytes) -> None:
        """BusyError if there is no room for it."""
        if part and (
            self._held.total() + len(part) > self._most or self._held[self._owner] + len(part) > SHARE * self._most
        ):
            raise BusyError("too many bodies are held now; send it again later")
        self._parts.append(part)
        self.size += len(part)
        self._held[self._owner] += len(part)

    def take(self) -> bytes:
        """The whole of it, once. It counts as held until it is released."""
        whole = b"".join(self._parts)
        self._parts.clear()
        return whole

    def release(self) -> None:
        self._held[self._owner] -= self.size
        if not self._held[self._owner]:
            del self._held[self._owner]


def body_too_large(limit: int) -> TooLargeError:
    """The error about a body of more than `limit` bytes."""
    return TooLargeError(f"the body must have at most {limit:,} bytes (limits.body_mb); it has more")


def _owner(scope: Scope) -> str:
    """Whose a body is: of a key, or of an address where there are no keys."""
    client = scope.get("client")
    return str(scope.get(OWNER) or (client[0] if client else ""))


def _replay(body: Body, receive: Receive) -> Receive:
    """The body as one message, and then whatever the client does."""
    first = True

    async def replay() -> Message:
        nonlocal first
        if not first:
            return await receive()
        first = False
        return {"type": "http.request", "body": body.take(), "more_body": False}

    return replay
