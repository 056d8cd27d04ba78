"""At the edge of every HTTP server of Serve: a bound on bodies, and one shape for errors.

Serve reads a body of any size into memory before an application sees it, and says what goes wrong in plain text. Both
are put right here, in the process that holds the client's connection: Serve's own proxy, or the replica behind HAProxy.
"""

import asyncio
import contextlib
import json
import math

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import AssayError, OverLimitError, StrangerError, TooLargeError

LINGER_SECONDS = 10.0
SERVES_OWN = "/-/"  # its health and its routes, which read no body


def error_body(message: str) -> bytes:
    """The protocol's shape of an error."""
    return json.dumps({"error": message}).encode()


def error_headers(error: AssayError) -> dict[str, str]:
    """What goes with an error beside its sentence: how to come in, or when to come back."""
    if isinstance(error, StrangerError):
        return {"WWW-Authenticate": "Bearer"}
    if isinstance(error, OverLimitError):
        return {"Retry-After": str(max(1, math.ceil(error.seconds)))}
    return {}


class Edge:
    """ASGI middleware. limit: bytes that a body may have, whether it declares its length or comes in chunks."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app, self._limit = app, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(SERVES_OWN):
            await self._app(scope, receive, send)
            return
        declared = Headers(scope=scope).get("content-length", "")
        exchange = _Exchange(receive, send, self._limit)
        if declared.isdigit() and int(declared) > self._limit:
            exchange.over = True
        else:
            try:
                await self._app(scope, exchange.receive, exchange.send)
            except asyncio.CancelledError:  # how Serve drops a request whose client has left, as it was made to see
                if not exchange.over:
                    raise
        if exchange.over and not exchange.started:
            await refuse(TooLargeError(f"the body has more than {self._limit:,} bytes"), receive, send)


async def refuse(error: AssayError, receive: Receive, send: Send) -> None:
    """Answer with an error before the body has been read, and close the connection."""
    body = error_body(str(error))
    headers = {
        **error_headers(error),
        "content-type": "application/json",
        "content-length": str(len(body)),
        "connection": "close",
    }
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": error.http_status, "headers": raw})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    # Closing on a client that still sends resets the connection, and it never reads the answer. So what comes is
    # thrown away for a while.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER_SECONDS):
            while (message := await receive())["type"] == "http.request" and message.get("more_body"):
                pass
    await send({"type": "http.response.body", "body": b"", "more_body": False})


class _Exchange:
    """One request and its answer, watched on their way."""

    def __init__(self, receive: Receive, send: Send, limit: int) -> None:
        self._receive, self._send, self._limit = receive, send, limit
        self._received = 0
        self._error: Message | None = None  # the start of an error in plain text, held back until its body is there
        self._text = b""
        self.over = False
        self.started = False

    async def receive(self) -> Message:
        if self.over:
            return {"type": "http.disconnect"}
        message = await self._receive()
        self._received += len(message.get("body", b""))
        if self._received > self._limit and not self.started:
            self.over = True
            return {"type": "http.disconnect"}
        return message

    async def send(self, message: Message) -> None:
        if self.over and not self.started:
            return
        self.started = True
        if message["type"] == "http.response.start":
            kind = Headers(raw=message["headers"]).get("content-type", "")
            if message["status"] >= 400 and kind.startswith("text/plain"):
                self._error = message
                return
        elif self._error is not None:
            self._text += message.get("body", b"")
            if message.get("more_body"):
                return
            message = {**message, "body": error_body(self._text.decode(errors="replace"))}
            headers = MutableHeaders(raw=list(self._error["headers"]))
            headers["content-type"] = "application/json"
            headers["content-length"] = str(len(message["body"]))
            await self._send({**self._error, "headers": headers.raw})
            self._error = None
        await self._send(message)
