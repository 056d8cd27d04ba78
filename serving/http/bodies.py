"""The body of a request is read before the request takes a place at a replica: whole, bounded, and in time.

Serve would let a request that has begun wait at the replica for the rest of its body, however long, and hold a body of
any size in memory. This is corrected in the process that holds the client's connection: Serve's own proxy, or the
replica behind HAProxy.
"""

import asyncio
from typing import Self

from starlette.types import Message, Receive, Scope

from service.errors import BusyError, TooLargeError, TooSlowError
from serving.http.connections import WHOLE
from serving.http.headers import Headers, size_of
from serving.http.owners import SHARE
from serving.http.settings import Connections


class Bodies:
    """limit: bytes that a body may have, whether it declares its length or comes in chunks."""

    def __init__(self, limit: int, connections: Connections) -> None:
        self._limit, self._connections = limit, connections
        self._held = Held(connections.bodies_bytes)

    async def read(self, body: "Body", scope: Scope, headers: Headers, receive: Receive) -> bool:
        """Read a body. False: the client left before its end. AssayError: too large, too slow, or no room for it."""
        if (size_of(headers.get("content-length", "")) or 0) > self._limit:
            raise body_too_large(self._limit)
        began = asyncio.get_running_loop().time()
        more = True
        while more:
            message = await (receive() if WHOLE in scope else self._in_time(receive, body, began))
            if message["type"] != "http.request":
                return False
            body.append(message.get("body", b""))
            if body.size > self._limit:
                raise body_too_large(self._limit)
            more = message.get("more_body", False)
        return True

    async def _in_time(self, receive: Receive, body: "Body", began: float) -> Message:
        allowed = self._connections.seconds_for(body.size)
        try:
            async with asyncio.timeout_at(began + allowed):
                return await receive()
        except TimeoutError:
            raise TooSlowError(
                f"the body must come within {self._connections.body_seconds:g} s, or faster than "
                f"{self._connections.body_kb_per_second:g} KiB/s; {body.size:,} bytes came in {allowed:.0f} s"
            ) from None

    def hold(self, owner: str) -> "Body":
        """A body to be read. owner: the name of a key, or an address where there are no keys."""
        return Body(self._held, owner)


class Held:
    """The bytes of all bodies that are held. most: how many they may be; those of one owner half of it."""

    def __init__(self, most: int) -> None:
        self._most, self._total = most, 0
        self._of_owner: dict[str, int] = {}

    def change(self, owner: str, size: int) -> None:
        """BusyError if there is no room for so many more."""
        held = self._of_owner.get(owner, 0) + size
        if size > 0 and (self._total + size > self._most or held > SHARE * self._most):
            raise BusyError("too many bodies are held now; send it again later")
        self._total += size
        if held:
            self._of_owner[owner] = held
        else:
            self._of_owner.pop(owner, None)


class Body:
    """A body, counted with all others that are held until the end of its `with`."""

    def __init__(self, held: Held, owner: str) -> None:
        self._held, self._owner = held, owner
        self._parts: list[bytes] = []
        self._taken = False
        self.size = 0

    def append(self, part: bytes) -> None:
        """BusyError if there is no room for it."""
        self._held.change(self._owner, len(part))
        self._parts.append(part)
        self.size += len(part)

    def take(self) -> bytes:
        """The whole of it, once. It goes on counting as held."""
        whole = b"".join(self._parts)
        self._parts.clear()
        self._taken = True
        return whole

    def replay(self, receive: Receive) -> Receive:
        """The body as one message, and then whatever the client does."""

        async def replay() -> Message:
            if self._taken:
                return await receive()
            return {"type": "http.request", "body": self.take(), "more_body": False}

        return replay

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self._held.change(self._owner, -self.size)


def body_too_large(limit: int) -> TooLargeError:
    """The error about a body of more than `limit` bytes."""
    return TooLargeError(f"the body must have at most {limit:,} bytes (limits.body_mb); it has more")
