"""An error as an HTTP answer: one shape for all, whoever finds it."""

import asyncio
import contextlib
import json
import math

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import AssayError, MethodNotAllowedError, OverLimitError, UnauthorisedError

INTERNAL = "internal error; the log of the replica says more"
LINGER_SECONDS = 10.0
LONGEST = 1000  # characters of a sentence: what a client sent is not sent back at length


def error_body(message: str) -> bytes:
    """The protocol's shape of an error."""
    return json.dumps({"error": shortened(message)}).encode()


def shortened(message: str) -> str:
    return message if len(message) <= LONGEST else f"{message[:LONGEST]}…"


def error_headers(error: AssayError) -> dict[str, str]:
    """The headers beside the sentence: how to show a key, when to come back, or how to ask."""
    if isinstance(error, UnauthorisedError):
        return {"WWW-Authenticate": "Bearer"}
    if isinstance(error, OverLimitError):
        return {"Retry-After": str(max(1, math.ceil(error.seconds)))}
    if isinstance(error, MethodNotAllowedError):
        return {"Allow": ", ".join(error.allowed)}
    return {}


async def refuse(error: AssayError, receive: Receive, send: Send) -> None:
    """Answer with an error before the body has been read, and close the connection."""
    body = error_body(str(error))
    headers = {
        **({"Retry-After": "1"} if error.http_status == 503 else {}),
        **error_headers(error),
        "content-type": "application/json",
        "content-length": str(len(body)),
        "connection": "close",
    }
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": error.http_status, "headers": raw})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    # To close on a client that still sends would reset the connection, and the client would never read the answer. So
    # the rest of its body is read and dropped for a while.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER_SECONDS):
            while (message := await receive())["type"] == "http.request" and message.get("more_body"):
                pass
    await send({"type": "http.response.body", "body": b"", "more_body": False})


class JsonErrors:
    """ASGI middleware: the errors of Serve itself, which are plain text, in the shape of the protocol."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, _Shaped(send).send if scope["type"] == "http" else send)


class _Shaped:
    """One answer on its way to a client."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._start: Message | None = None  # of an error in plain text, held back until its body is there
        self._text = b""

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] >= 400:
            content_type = Headers(raw=message["headers"]).get("content-type", "")
            if content_type.startswith("text/plain"):
                self._start = message
                return
        if self._start is not None:
            self._text += message.get("body", b"")
            if message.get("more_body"):
                return
            message = {**message, "body": error_body(self._text.decode(errors="replace"))}
            headers = MutableHeaders(raw=list(self._start["headers"]))
            headers["content-type"] = "application/json"
            headers["content-length"] = str(len(message["body"]))
            await self._send({**self._start, "headers": headers.raw})
            self._start = None
        await self._send(message)
