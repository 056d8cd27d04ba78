"""One request and its answer, as a server of Serve exchanges them with a client."""

import asyncio
import contextlib

from starlette.types import Message, Receive, Send

from service.errors import AssayError
from serving.http.errors import INTERNAL, error_body, error_headers
from serving.http.traces import HEADER, NONE

LEFT = 499  # the status of a client that left before it was answered
FAILED = 500  # what Serve says about it may hold a traceback, and where its processes run
LINGER_SECONDS = 10.0


class Exchange:
    """Gives the trace back, and the errors of Serve itself, which are plain text, in the shape of the protocol.

    status: of the answer, once that has begun.
    """

    def __init__(self, receive: Receive, send: Send, trace: str) -> None:
        self._receive, self._send, self.trace = receive, send, trace
        self.status, self.has_begun = LEFT, False
        self._body_ended = False
        self._error: Message | None = None  # the start of one in plain text, held back until its body is there
        self._text = b""

    async def receive(self) -> Message:
        message = await self._receive()
        self._body_ended = self._body_ended or not message.get("more_body")
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.has_begun, self.status = True, message["status"]
            if self.trace != NONE:
                message = {**message, "headers": [*message["headers"], (HEADER.encode(), self.trace.encode())]}
            if self.status >= 400 and _is_text(message):
                self._error = message
                return
        elif self._error is not None:
            self._text += message.get("body", b"")
            if message.get("more_body"):
                return
            text = INTERNAL if self.status == FAILED else self._text.decode(errors="replace")
            message = {**message, "body": error_body(text)}
            await self._send(_of_json(self._error, len(message["body"])))
            self._error = None
        await self._send(message)

    async def refuse(self, error: AssayError) -> None:
        """Answer with an error, and close the connection."""
        body = error_body(str(error))
        headers = {
            **({"Retry-After": "1"} if error.http_status == 503 else {}),
            **error_headers(error),
            "content-type": "application/json",
            "content-length": str(len(body)),
            "connection": "close",
        }
        raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        await self.send({"type": "http.response.start", "status": error.http_status, "headers": raw})
        await self.send({"type": "http.response.body", "body": body, "more_body": True})
        # To close on a client that still sends would reset the connection, and the client would never read the answer.
        # So the rest of its body is read and dropped for a while.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                while not self._body_ended:
                    await self.receive()
        await self.send({"type": "http.response.body", "body": b"", "more_body": False})


def _is_text(start: Message) -> bool:
    return any(name == b"content-type" and value.startswith(b"text/plain") for name, value in start["headers"])


def _of_json(start: Message, length: int) -> Message:
    """The start of an answer with a body of JSON instead of its own."""
    kept = [(name, value) for name, value in start["headers"] if name not in (b"content-type", b"content-length")]
    added = [(b"content-type", b"application/json"), (b"content-length", b"%d" % length)]
    return {**start, "headers": [*kept, *added]}
