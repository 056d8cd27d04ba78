"""A bound on bodies, and one shape for errors, in every HTTP server of Serve.

Serve reads a body of any size into memory before an application sees it, and answers its own errors in plain text. Both
are corrected here, in the process that holds the client's connection: Serve's own proxy, or the replica behind HAProxy.
"""

import asyncio

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import TooLargeError
from serving.http.errors import error_body, refuse

SERVE_PATHS = "/-/"  # Serve's own: its health and its routes, which read no body


class BodyLimit:
    """ASGI middleware. limit: bytes that a body may have, whether it declares its length or comes in chunks."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app, self._limit = app, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(SERVE_PATHS):
            await self._app(scope, receive, send)
            return
        declared = Headers(scope=scope).get("content-length", "")
        exchange = _Exchange(receive, send, self._limit)
        if declared.isdigit() and int(declared) > self._limit:
            exchange.over = True
        else:
            try:
                await self._app(scope, exchange.receive, exchange.send)
            except asyncio.CancelledError:  # Serve cancels a request whose client has left; here it was told so
                if not exchange.over:
                    raise
        if exchange.over and not exchange.started:
            await refuse(body_too_large(self._limit), receive, send)


def body_too_large(limit: int) -> TooLargeError:
    """The error about a body of more than `limit` bytes."""
    return TooLargeError(f"the body has more than {limit:,} bytes")


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
            content_type = Headers(raw=message["headers"]).get("content-type", "")
            if message["status"] >= 400 and content_type.startswith("text/plain"):
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
