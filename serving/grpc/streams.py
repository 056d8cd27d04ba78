"""The answers to one message of a stream, computed no faster than they are read, as serving.http.streams does it.

Serve passes on whatever a replica sends, and keeps what the client has not read. So a replica gets a stream in place of
the message: first the message itself, then an empty one for each answer that was sent on.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

from serving.grpc.wire import text_field

PassedStream = Callable[[AsyncIterator[bytes], Any], AsyncIterator[bytes]]  # to a replica, by Serve
ERROR_MESSAGE = 1  # the field of a ModelStreamInferResponse
SENT_ON = b""


class _Messages:
    """What a replica gets: a message, and then an empty one for each answer that was sent on."""

    def __init__(self, message: bytes) -> None:
        self._parts: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.put(message)

    def put(self, part: bytes | None) -> None:
        """None: there are no more."""
        self._parts.put_nowait(part)

    def __aiter__(self) -> "_Messages":
        return self

    async def __anext__(self) -> bytes:
        part = await self._parts.get()
        if part is None:
            raise StopAsyncIteration
        return part


async def answers(passed: PassedStream, message: bytes, context: Any) -> AsyncGenerator[bytes, None]:
    """What a replica answers to a message. When nobody takes more, the replica is told so, and its work cancelled."""
    messages, parts = _Messages(message), asyncio.Queue[bytes | None]()

    async def pull() -> None:
        """In a task of its own: Serve's generator can be cancelled while it waits, but not be closed."""
        try:
            async for part in passed(messages, context):
                parts.put_nowait(part)
        finally:
            parts.put_nowait(None)

    pulling = asyncio.create_task(pull())
    try:
        while (part := await parts.get()) is not None:
            yield part
            messages.put(SENT_ON)
        await pulling
    finally:
        messages.put(None)
        pulling.cancel()
        await asyncio.wait([pulling])


def failure(sentence: str) -> bytes:
    """An answer that is an error: the stream goes on after it."""
    return text_field(ERROR_MESSAGE, sentence)
