"""Streams that are computed no faster than they are read.

Serve passes on whatever a replica sends, and keeps what the client has not read. So the server that holds the client's
connection tells the replica of each part that it could send on: as an empty message on the way on which the request
came. The replica waits for it before it computes further.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing

from ray.exceptions import RayError
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

EVENT_STREAM = "text/event-stream"
TELLS_OF_PARTS = "assay.tells_of_parts"  # in the scope of a request, where it is passed on so
AHEAD = 4  # parts that may be on their way
SENT_ON: Message = {"type": "http.request", "body": b"", "more_body": True}


class PartsSent:
    """One request and its answer, which may be a stream: the application is told of each part that was sent on."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive, self._send = receive, send
        self._body_ended = self._is_stream = False
        self._parts = 0  # sent on, of which the application was not told yet
        self._client: asyncio.Task[Message] | None = None  # waits for what the client does after its body
        self._news = asyncio.Event()

    async def send(self, message: Message) -> None:
        await self._send(message)  # returns when there is room for more on the way to the client
        if message["type"] == "http.response.start":
            self._is_stream = Headers(raw=message["headers"]).get("content-type", "").startswith(EVENT_STREAM)
        elif self._is_stream and message.get("more_body"):
            self._parts += 1
            self._news.set()

    async def receive(self) -> Message:
        if not self._body_ended:
            message = await self._receive()
            self._body_ended = not message.get("more_body", False)
            return message
        if self._client is None:
            self._client = asyncio.ensure_future(self._receive())
            self._client.add_done_callback(lambda done: self._news.set())
        while not self._client.done():
            if self._parts:
                self._parts -= 1
                return SENT_ON
            self._news.clear()
            await self._news.wait()
        return self._client.result()

    def close(self) -> None:
        if self._client is not None:
            self._client.cancel()


class EventStream(Response):
    """Server-sent events. The next one is computed when all but a few of those before have been sent on."""

    media_type = EVENT_STREAM

    def __init__(self, events: AsyncGenerator[bytes, None], headers: Mapping[str, str]) -> None:
        super().__init__(headers=headers)
        del self.headers["content-length"]
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        on_the_way = 0
        async with aclosing(self._events) as events:
            async for event in events:
                await send({"type": "http.response.body", "body": event, "more_body": True})
                on_the_way += 1
                while on_the_way >= AHEAD and TELLS_OF_PARTS in scope:
                    if await _has_left(receive):
                        return
                    on_the_way -= 1
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _has_left(receive: Receive) -> bool:
    """Whether the client has left; if not, a part was sent on."""
    try:
        kind: str = (await receive())["type"]
    except RayError:  # the server that held the connection has given the request up
        return True
    return kind == "http.disconnect"
