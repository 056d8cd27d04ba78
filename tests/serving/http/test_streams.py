"""A stream is computed as it is read."""

import asyncio
from collections.abc import AsyncGenerator

from ray.exceptions import RayTaskError
from starlette.types import Message, Receive, Scope, Send

from serving.http.pipeline import Pipeline
from serving.http.streams import AHEAD, TELLS_OF_PARTS, EventStream
from tests.serving import virtual_time
from tests.serving.http.test_bodies import SETTINGS


def scope() -> Scope:
    return {"type": "http", "method": "POST", "path": "/v2/models/m/infer_stream", "headers": []}


class Stream:
    """An application that streams. computed: events."""

    def __init__(self, length: int = 100) -> None:
        self.length, self.computed, self.closed = length, 0, False

    async def events(self) -> AsyncGenerator[bytes, None]:
        try:
            while self.computed < self.length:
                self.computed += 1
                yield b"data: %d\n\n" % self.computed
        finally:
            self.closed = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["body"] == b"body"
        await EventStream(self.events(), {"cache-control": "no-store"})(scope, receive, send)


class Reader:
    """A client that reads one message for each `read`, and leaves when told."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.room, self.left = asyncio.Semaphore(0), asyncio.Event()
        self._body_sent = False

    async def receive(self) -> Message:
        if not self._body_sent:
            self._body_sent = True
            return {"type": "http.request", "body": b"body", "more_body": False}
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        await self.room.acquire()
        self.messages.append(message)


def test_no_more_is_computed_than_is_read() -> None:
    async def run() -> None:
        app, reader = Stream(), Reader()
        task = asyncio.create_task(Pipeline(app, SETTINGS)(scope(), reader.receive, reader.send))
        for read in range(1, 40):
            reader.room.release()
            await asyncio.sleep(0.001)
            assert app.computed <= read + AHEAD
        for _ in range(100):
            reader.room.release()
        await task
        assert app.computed == app.length and app.closed
        bodies = [message["body"] for message in reader.messages[1:]]
        assert bodies == [*(b"data: %d\n\n" % number for number in range(1, 101)), b""]
        assert (b"content-type", b"text/event-stream; charset=utf-8") in reader.messages[0]["headers"]
        assert not any(name == b"content-length" for name, _ in reader.messages[0]["headers"])

    virtual_time.run(run())


def test_the_stream_of_a_client_that_leaves_ends() -> None:
    async def run() -> None:
        app, reader = Stream(), Reader()
        task = asyncio.create_task(Pipeline(app, SETTINGS)(scope(), reader.receive, reader.send))
        for _ in range(10):
            reader.room.release()
        await asyncio.sleep(0.01)
        reader.left.set()
        for _ in range(10):
            reader.room.release()
        await task
        assert app.closed and app.computed < 30
        assert len(asyncio.all_tasks()) == 1, "nothing waits on"

    virtual_time.run(run())


def test_without_the_middleware_nothing_is_waited_for() -> None:
    async def run() -> None:
        app, reader = Stream(), Reader()
        for _ in range(200):
            reader.room.release()
        await app(scope(), reader.receive, reader.send)
        assert app.computed == app.length

    virtual_time.run(run())


def test_other_answers_are_not_told_of() -> None:
    """An application that listens for its client to leave hears nothing else."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"1", "more_body": True})
        assert (await receive())["type"] == "http.disconnect"

    async def run() -> None:
        reader = Reader()
        reader.left.set()
        for _ in range(3):
            reader.room.release()
        await Pipeline(app, SETTINGS)(scope(), reader.receive, reader.send)

    virtual_time.run(run())


def test_a_stream_whose_request_was_given_up_ends() -> None:
    """Serve's proxy may forget a request before its replica has heard that the client left."""

    async def given_up() -> Message:
        raise RayTaskError("receive_asgi_messages", "", None)

    async def run() -> None:
        app, reader = Stream(), Reader()
        for _ in range(10):
            reader.room.release()
        await EventStream(app.events(), {})({**scope(), TELLS_OF_PARTS: True}, given_up, reader.send)
        assert app.closed and app.computed == AHEAD

    asyncio.run(run())
