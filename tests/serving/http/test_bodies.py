"""Bodies are read before their request is passed on: those over the limits are refused while they come."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from serving.http import exchange
from serving.http.pipeline import Pipeline
from serving.http.settings import Connections, Http, Limits, ServeSettings
from tests.serving import virtual_time

LIMIT = 1000
SETTINGS = ServeSettings(
    http=Http(host="0.0.0.0"),
    connections=Connections(body_seconds=0.2, body_kb_per_second=4, bodies_mb=4000 / 2**20),
    limits=Limits(body_mb=LIMIT / 2**20),
)


class Client:
    """One request in chunks, and what comes back. pulled: bytes that were taken from it."""

    def __init__(self, chunks: list[bytes], declared: int | None = None, path: str = "/v2/models/m/infer") -> None:
        headers = [] if declared is None else [(b"content-length", str(declared).encode())]
        self.scope: Scope = {"type": "http", "method": "POST", "path": path, "headers": headers}
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
        self.messages: list[bytes] = []

    @property
    def called(self) -> bool:
        return bool(self.messages)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        more = True
        while more:
            message = await receive()
            assert message["type"] == "http.request"
            self.messages.append(message["body"])
            more = message["more_body"]
        size = sum(map(len, self.messages))
        body = self.body or str(size).encode()
        headers = [[b"content-type", self.kind], [b"content-length", str(len(body)).encode()], [b"retry-after", b"2"]]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def ask(app: App, client: Client, settings: ServeSettings = SETTINGS) -> None:
    virtual_time.run(Pipeline(app, settings)(client.scope, client.receive, client.send))


@pytest.mark.parametrize("declared", [None, LIMIT])
def test_a_body_at_the_limit_is_passed_on_whole(declared: int | None) -> None:
    app, client = App(), Client([b"x" * 100] * 10, declared)
    ask(app, client)
    assert (client.status, client.answer) == (200, LIMIT)
    assert app.messages == [b"x" * LIMIT]


def test_a_declared_length_over_the_limit_never_reaches_the_application() -> None:
    app, client = App(), Client([b"x" * 100] * 11, LIMIT + 100)
    ask(app, client)
    assert not app.called
    assert client.status == 413
    assert client.answer == {"error": "the body must have at most 1,000 bytes (limits.body_mb); it has more"}
    assert client.headers[b"connection"] == b"close"
    assert client.pulled == 1100, "what still comes is thrown away, so that the client reads the answer"


def test_chunks_over_the_limit_never_reach_the_application() -> None:
    app, client = App(), Client([b"x" * 600] * 3)
    ask(app, client)
    assert not app.called
    assert client.status == 413 and "at most 1,000" in client.answer["error"]


def test_a_client_that_never_stops_sending_is_left_alone_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "LINGER_SECONDS", 0.05)

    class Endless(Client):
        async def receive(self) -> Message:
            await asyncio.sleep(0.001)
            return {"type": "http.request", "body": b"x", "more_body": True}

    client = Endless([], 10**12)
    ask(App(), client)
    assert client.status == 413 and client.answer


class Slow(Client):
    """Waits before each chunk; after the last one for ever, unless it is the end."""

    def __init__(self, chunks: list[bytes], seconds: float, ends: bool = False, owner: str = "") -> None:
        super().__init__(chunks)
        self.scope["client"] = (owner, 0)
        self._seconds, self._ends = seconds, ends

    async def receive(self) -> Message:
        if self._left == 0:
            await asyncio.Event().wait()
        await asyncio.sleep(self._seconds)
        message = await super().receive()
        return {**message, "more_body": message["more_body"] or not self._ends}


@pytest.mark.parametrize("seconds", [0.0, 0.02])
def test_a_body_that_never_ends_is_408(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """At once and then nothing, or a byte now and then."""
    monkeypatch.setattr(exchange, "LINGER_SECONDS", 0.01)
    app, client = App(), Slow([b"x"] * 100, seconds)
    ask(app, client)
    assert not app.called and client.status == 408
    assert client.answer["error"].startswith("the body must come within 0.2 s, or faster than 4 KiB/s; ")


def test_a_slow_body_that_is_fast_enough_passes() -> None:
    client = Slow([b"x" * 200] * 4, 0.06, ends=True)
    ask(App(), client)
    assert (client.status, client.answer) == (200, 800)


def test_a_client_that_leaves_before_the_end_is_no_failure() -> None:
    class Leaves(Client):
        async def receive(self) -> Message:
            return {"type": "http.disconnect"}

    app, client = App(), Leaves([], 100)
    ask(app, client)
    assert not app.called and not client.sent


def test_there_is_room_for_so_many_bodies_and_for_those_of_one_owner_half(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "LINGER_SECONDS", 0.01)
    pipeline = Pipeline(App(), SETTINGS)

    async def send(*clients: Slow) -> list[int]:
        await asyncio.gather(*(pipeline(client.scope, client.receive, client.send) for client in clients))
        return sorted(client.status for client in clients)

    def body(owner: str) -> Slow:
        return Slow([b"x" * 900], 0.05, ends=True, owner=owner)

    def held(owner: str) -> Slow:
        return Slow([b"x" * 900], 0.0, owner=owner)

    assert virtual_time.run(send(held("a"), held("a"), body("a"))) == [408, 408, 503]
    assert virtual_time.run(send(held("a"), held("a"), body("b"))) == [200, 408, 408]
    assert virtual_time.run(send(held("a"), held("a"), held("b"), held("b"), body("c"))) == [408, 408, 408, 408, 503]
    assert virtual_time.run(send(body("a"), body("b"))) == [200, 200], "what was held is given back"


def test_a_refusal_for_want_of_room_says_when_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "LINGER_SECONDS", 0.01)
    client = Slow([b"x" * 900], 0.0, ends=True)
    ask(App(), client, SETTINGS.model_copy(update={"connections": Connections(bodies_mb=1e-6)}))
    assert client.status == 503 and client.headers[b"retry-after"] == b"1"


def test_errors_of_serve_take_the_shape_of_the_protocol() -> None:
    client = Client([b""])
    ask(App(503, b"text/plain; charset=utf-8", b"Request dropped due to backpressure"), client)
    assert client.status == 503 and client.answer == {"error": "Request dropped due to backpressure"}
    assert client.headers[b"content-type"] == b"application/json"
    assert client.headers[b"retry-after"] == b"2"
    assert int(client.headers[b"content-length"]) == len(client.sent[1]["body"])


def test_where_the_processes_of_serve_run_is_not_told() -> None:
    client = Client([b""])
    ask(App(500, b"text/plain", b"The actor died unexpectedly.\n\tpid: 7, ip: 10.0.0.3"), client)
    assert client.status == 500 and client.answer == {"error": "internal error; the log of the replica says more"}


@pytest.mark.parametrize(("status", "kind"), [(200, b"text/plain"), (400, b"application/json")])
def test_other_answers_pass_untouched(status: int, kind: bytes) -> None:
    client = Client([b""])
    ask(App(status, kind, b"17"), client)
    assert (client.status, client.answer, client.headers[b"content-type"]) == (status, 17, kind)


def test_paths_of_serve_itself_pass_untouched() -> None:
    client = Client([b"x" * 2000], 2000, path="/-/healthz")
    ask(App(200, b"text/plain", b"17"), client)
    assert (client.status, client.answer) == (200, 17)
