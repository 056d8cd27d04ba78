"""The connections of every HTTP server of Serve: how many there are, how much and how slowly a client may send before
its request is known, and how slowly it may read the answer.

uvicorn, whose servers they are, bounds none of this but for idle connections that have sent a whole request.
"""

import asyncio
from itertools import chain
from typing import Any, cast

import uvicorn.config
from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from serving.http.errors import error_body
from serving.http.owners import leaving, owner_of
from serving.http.settings import Connections

LEAVE = "assay.leave"  # in the scope of a request: called when its client leaves
WHOLE = "assay.whole"  # in the scope of a request: its body is there, to its end
JOINED_BYTES = 64 << 10  # of an answer that wait for more of it at most
# How long a replica keeps an idle connection of HAProxy, which itself closes those that it does not need: after some
# seconds. Were the replica first, a request could be on its way to it, and its client would see a closed connection.
POOLED_SECONDS = 600
BAD_REQUEST, TOO_LARGE = 400, 431  # 431: Request Header Fields Too Large (RFC 6585)


def install(limits: Connections, pooled: bool) -> None:
    """Let all uvicorn servers that this process starts from now on bound their connections. pooled: see `bounded`.

    Serve starts them with uvicorn's automatic choice of a protocol and passes on no other: so that choice is made here.
    """
    protocol = bounded(limits, pooled)
    uvicorn.config.HTTP_PROTOCOLS["auto"] = protocol  # type: ignore[assignment]  # a class is allowed as well


def bounded(limits: Connections, pooled: bool = False) -> type[HttpToolsProtocol]:
    """The protocol of connections within these limits. pooled: they are HAProxy's, which closes idle ones itself."""
    unread = Unread(limits.unread_bytes)
    return type("BoundedConnection", (Connection,), {"limits": limits, "pooled": pooled, "unread": unread})


class Unread:
    """The answers that wait in memory until their clients read them. most: bytes of all.

    Where they are more, the longest waiting is dropped of whoever has the most of them, but never the newest.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._owners: dict[Connection, str] = {}  # the longest waiting first

    def add(self, connection: "Connection", owner: str) -> None:
        self._owners[connection] = owner
        while len(self._owners) > 1:
            held = {each: (whose, each.transport.get_write_buffer_size()) for each, whose in self._owners.items()}
            if sum(size for _, size in held.values()) <= self._most:
                break
            dropped = leaving(held)
            self.remove(dropped)
            dropped.transport.abort()

    def remove(self, connection: "Connection") -> None:
        self._owners.pop(connection, None)


class JoinedWrites:
    """A transport that sends what is written in one turn of the event loop at once: the head of an answer and its body.

    uvicorn writes them one after the other: two calls to the system, and two packets that wake the receiver.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._parts: list[bytes] = []
        self._size = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if not self._parts:
            self._loop.call_soon(self._flush)
        self._parts.append(data)
        self._size += len(data)
        if self._size > JOINED_BYTES:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._parts:
            parts, self._parts, self._size = self._parts, [], 0
            self._transport.writelines(parts)


class Connection(HttpToolsProtocol):
    """One connection.

    A request with too many or too long headers is answered 431. A connection is closed without an answer if it is one
    too many, if it sends nothing, if headers are not there in time, or if it leaves an answer unread.
    """

    limits: Connections
    pooled: bool
    unread: Unread

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        if self.pooled:
            self.timeout_keep_alive = POOLED_SECONDS
        self._unparsed = 0  # bytes since the call in which a request began or a part of a body came
        self._refused = False
        self._head_timer: asyncio.TimerHandle | None = None
        self._unread_timer: asyncio.TimerHandle | None = None

    # ---- the transport ----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(cast(asyncio.Transport, JoinedWrites(transport, self.loop)))
        if len(self.connections) > self.limits.open:
            transport.abort()
        else:
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_head()
        self.resume_writing()
        super().connection_lost(exc)
        if self.cycle is not None:
            scope: Scope = self.cycle.scope  # type: ignore[assignment]  # of keys that servers may add to
            scope.get(LEAVE, lambda: None)()

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        self._unparsed += len(data)
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:
            self._await_head()  # its end has not come yet
        if self._unparsed > self.limits.header_bytes:
            self._refuse(TOO_LARGE, f"the headers have more than {self.limits.header_bytes:,} bytes")

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_reading(self.transport.get_write_buffer_size())
        if self.cycle is not None:
            self.unread.add(self, owner_of(self.cycle.scope))  # type: ignore[arg-type]

    def resume_writing(self) -> None:
        super().resume_writing()
        self.unread.remove(self)
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None

    # ---- the parser -------------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._unparsed = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._end_head()
        if len(self.headers) > self.limits.header_fields:
            self._refuse(TOO_LARGE, f"the request has more than {self.limits.header_fields:,} headers")
        elif len(self.url) + sum(map(len, chain.from_iterable(self.headers))) > self.limits.header_bytes:
            self._refuse(TOO_LARGE, f"the headers have more than {self.limits.header_bytes:,} bytes")
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._unparsed = 0
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if not self._refused:
            super().on_message_complete()
            assert self.cycle is not None
            scope: Scope = self.cycle.scope  # type: ignore[assignment]
            scope[WHOLE] = True
            if not self.pipeline:
                # uvicorn reads no further while much of a body waits; it would not see that the client leaves
                self.flow.resume_reading()

    def send_400_response(self, msg: str) -> None:
        self._refuse(BAD_REQUEST, "this is not a request in HTTP/1.1")

    def _should_upgrade_to_ws(self) -> bool:
        return False  # nothing here speaks another protocol: a request to change to one is answered as any other

    def _unsupported_upgrade_warning(self) -> None:
        pass

    # ---- the limits -------------------------------------------------------------------------------------------------

    def _refuse(self, status: int, message: str) -> None:
        """Answer once, unless the answer to an earlier request is under way, and close."""
        if self._refused:
            return
        self._refused = True
        if self.cycle is None or self.cycle.response_complete:
            body = error_body(message)
            lines = [b"content-type: application/json", b"content-length: %d" % len(body), b"connection: close"]
            self.transport.write(STATUS_LINE[status] + b"\r\n".join([*lines, b"", body]))
        self.transport.close()

    def _await_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.limits.header_seconds, self.transport.abort)

    def _end_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _watch_reading(self, unread: int) -> None:
        """Close the connection of a client that has read none of `unread` bytes when the time is over."""

        def check() -> None:
            left = self.transport.get_write_buffer_size()
            if left >= unread:
                self.transport.abort()
            else:
                self._watch_reading(left)

        self._unread_timer = self.loop.call_later(self.limits.unread_seconds, check)
