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


class _Told:
    """A message, and that its answers were sent on."""

    def __init__(self, message: bytes) -> None:
        self._parts: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.tell(message)

    def tell(self, part: bytes | None) -> None:
        """None: there is nothing more to be told."""
        self._parts.put_nowait(part)

    def __aiter__(self) -> "_Told":
        return self

    async def __anext__(self) -> bytes:
        part = await self._parts.get()
        if part is None:
            raise StopAsyncIteration
        return part


async def answers(passed: PassedStream, message: bytes, context: Any) -> AsyncGenerator[bytes, None]:
    """What a replica answers to a message. When nobody takes more, the replica is told so, and its work cancelled."""
    told, parts = _Told(message), asyncio.Queue[bytes | None]()

    async def pull() -> None:
        """In a task of its own: Serve's generator can be cancelled while it waits, but not be closed."""
        try:
            async for part in passed(told, context):
                parts.put_nowait(part)
        finally:
            parts.put_nowait(None)

    pulling = asyncio.create_task(pull())
    try:
        while (part := await parts.get()) is not None:
            yield part
            told.tell(SENT_ON)
        await pulling
    finally:
        told.tell(None)
        pulling.cancel()
        await asyncio.wait([pulling])


def failure(sentence: str) -> bytes:
    """An answer that is an error: the stream goes on after it."""
    return text_field(ERROR_MESSAGE, sentence)
