"""Bodies over the limit are refused while they come, errors in plain text are put into shape."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from serving.http import errors
from serving.http.body_limit import BodyLimit

LIMIT = 1000


class Client:
    """One request in chunks, and what comes back. pulled: bytes that were taken from it."""

    def __init__(self, chunks: list[bytes], declared: int | None = None, path: str = "/v2/models/m/infer") -> None:
        headers = [] if declared is None else [(b"content-length", str(declared).encode())]
        self.scope: Scope = {"type": "http", "path": path, "headers": headers}
        self._chunks: Iterator[bytes] = iter(chunks)
        self._left = len(chunks)
        self.pulled = 0
        self.sent: list[Message] = []

    async def receive(self) -> Message:
        if self._left == 0:
            return {"type": "http.disconnect"}
        self._left -= 1
        chunk = next(self._chunks)
        self.pulled += len(chunk)
        return {"type": "http.request", "body": chunk, "more_body": self._left > 0}

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    @property
    def status(self) -> int:
        assert [message["type"] for message in self.sent].count("http.response.start") == 1
        return int(self.sent[0]["status"])

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.sent[0]["headers"])

    @property
    def answer(self) -> Any:
        assert not self.sent[-1].get("more_body")
        return json.loads(b"".join(message["body"] for message in self.sent[1:]))


class App:
    """Reads the whole body and answers with its length, or as told."""

    def __init__(self, status: int = 200, kind: bytes = b"application/json", body: bytes = b"") -> None:
        self.status, self.kind, self.body = status, kind, body
        self.called = self.left = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.called = True
        size = 0
        while (message := await receive())["type"] == "http.request":
            size += len(message["body"])
            if not message["more_body"]:
                break
        else:
            self.left = True
            await send({"type": "http.response.start", "status": 499, "headers": []})
            await send({"type": "http.response.body", "body": b"gone"})
            raise asyncio.CancelledError
        body = self.body or str(size).encode()
        headers = [[b"content-type", self.kind], [b"content-length", str(len(body)).encode()], [b"retry-after", b"2"]]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def exchange(app: App, client: Client) -> None:
    asyncio.run(BodyLimit(app, LIMIT)(client.scope, client.receive, client.send))


@pytest.mark.parametrize("declared", [None, LIMIT])
def test_a_body_at_the_limit_passes(declared: int | None) -> None:
    client = Client([b"x" * 100] * 10, declared)
    exchange(App(), client)
    assert (client.status, client.answer) == (200, LIMIT)


def test_a_declared_length_over_the_limit_never_reaches_the_application() -> None:
    app, client = App(), Client([b"x" * 100] * 11, LIMIT + 100)
    exchange(app, client)
    assert not app.called
    assert client.status == 413 and client.answer == {"error": "the body has more than 1,000 bytes"}
    assert client.headers[b"connection"] == b"close"
    assert client.pulled == 1100, "what still comes is thrown away, so that the client reads the answer"


def test_chunks_over_the_limit_are_refused_and_the_application_sees_the_client_leave() -> None:
    app, client = App(), Client([b"x" * 600] * 3)
    exchange(app, client)
    assert app.left
    assert client.status == 413 and "more than 1,000" in client.answer["error"]


def test_a_client_that_never_stops_sending_is_left_alone_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors, "LINGER_SECONDS", 0.05)

    class Endless(Client):
        async def receive(self) -> Message:
            await asyncio.sleep(0)
            return {"type": "http.request", "body": b"x", "more_body": True}

    client = Endless([], 10**12)
    exchange(App(), client)
    assert client.status == 413 and client.answer


def test_errors_of_serve_take_the_shape_of_the_protocol() -> None:
    client = Client([b""])
    exchange(App(503, b"text/plain; charset=utf-8", b"Request dropped due to backpressure"), client)
    assert client.status == 503 and client.answer == {"error": "Request dropped due to backpressure"}
    assert client.headers[b"content-type"] == b"application/json"
    assert client.headers[b"retry-after"] == b"2"
    assert int(client.headers[b"content-length"]) == len(client.sent[1]["body"])


@pytest.mark.parametrize(("status", "kind"), [(200, b"text/plain"), (400, b"application/json")])
def test_other_answers_pass_untouched(status: int, kind: bytes) -> None:
    client = Client([b""])
    exchange(App(status, kind, b"17"), client)
    assert (client.status, client.answer, client.headers[b"content-type"]) == (status, 17, kind)


def test_paths_of_serve_itself_pass_untouched() -> None:
    client = Client([b"x" * 2000], 2000, path="/-/healthz")
    exchange(App(503, b"text/plain", b"17"), client)
    assert (client.status, client.answer) == (503, 17)


def test_a_cancellation_from_outside_is_not_swallowed() -> None:
    async def cancelled(scope: Scope, receive: Receive, send: Send) -> None:
        raise asyncio.CancelledError

    client = Client([b""])

    async def run() -> None:
        with pytest.raises(asyncio.CancelledError):
            await BodyLimit(cancelled, LIMIT)(client.scope, client.receive, client.send)

    asyncio.run(run())
