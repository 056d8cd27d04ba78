"""Keys and quotas of requests: who is admitted, and that nothing of a body is read before."""

import asyncio
import json
import math
from collections.abc import Sequence
from typing import Any, cast

import pytest
import uvicorn.config
from starlette.types import Message, Scope

from service.errors import ClusterError
from serving.http import exchange, middleware
from serving.http.auth import PREFETCH_SECONDS, Allowance
from serving.http.keys import new_key
from serving.http.middleware import middlewares
from serving.http.pipeline import Pipeline
from serving.http.quotas import Bucket, Buckets
from serving.http.settings import Connections, Http, Limits, ServeSettings
from tests.serving.http.test_bodies import App, Client
from tests.serving.http.test_quotas import Clock

TOKEN, ALICE = new_key("alice")
ALICE = ALICE.model_copy(update={"requests_per_second": 0.25, "burst": 3})


class LocalQuotas:
    """The buckets without their actor. calls: how often they were asked."""

    def __init__(self, clock: Clock) -> None:
        self.buckets, self.calls = Buckets(clock), 0

    async def take(self, bucket: Bucket, amount: float, more: int) -> tuple[float, float]:
        self.calls += 1
        await asyncio.sleep(0)
        return self.buckets.take(bucket, amount, more)


class Caller(Client):
    """A client with headers."""

    def __init__(
        self,
        headers: Sequence[tuple[bytes, bytes]] = (),
        path: str = "/v2/models/m/infer",
        method: str = "POST",
        chunks: Sequence[bytes] = (b"",),
    ) -> None:
        super().__init__(list(chunks), path=path)
        self.scope |= {"method": method, "headers": list(headers)}


KEYED = [(b"authorization", f"Bearer {TOKEN}".encode())]


def auth(app: App, clock: Clock | None = None) -> Pipeline:
    settings = ServeSettings(http=Http(host="0.0.0.0"), keys=(ALICE,))
    return Pipeline(app, settings, quotas=LocalQuotas(clock or Clock()))


def call(auth: Pipeline, client: Client) -> Client:
    asyncio.run(auth(client.scope, client.receive, client.send))
    return client


@pytest.mark.parametrize("path", ["/v2", "/v2/models/m/infer", "/-/routes", "/v2/health", "/v2/health/live/x", "/x"])
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "DELETE"])
def test_without_a_key_the_answer_is_401_everywhere(path: str, method: str) -> None:
    app = App()
    client = call(auth(app), Caller(path=path, method=method))
    assert not app.called
    assert client.status == 401 and client.headers[b"www-authenticate"] == b"Bearer"
    assert "Authorization: Bearer" in client.answer["error"] and "alice" not in json.dumps(client.answer)


@pytest.mark.parametrize("path", ["/v2/health/live", "/v2/health/ready", "/v2/health/ready/", "/-/healthz"])
def test_health_is_open_to_all(path: str) -> None:
    for method, status in (("GET", 200), ("HEAD", 200), ("POST", 401)):
        assert call(auth(App()), Caller(path=path, method=method)).status == status
    for header in ((b"content-length", b"9"), (b"transfer-encoding", b"chunked")):
        status = call(auth(App()), Caller([header], path, "GET")).status
        assert status == (200 if "live" in path else 401), "but takes no bodies"


def test_without_a_key_the_body_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The body never reaches the application, and is not waited for without end."""
    monkeypatch.setattr(exchange, "LINGER_SECONDS", 0.05)

    class Endless(Caller):
        async def receive(self) -> Message:
            assert self.sent, "the body was read before the answer was given"
            await asyncio.sleep(0)
            return {"type": "http.request", "body": b"x" * 1000, "more_body": True}

    app = App()
    client = call(auth(app), Endless([(b"content-length", b"100000000")]))
    assert client.status == 401 and client.headers[b"connection"] == b"close" and not app.called


def test_a_key_is_admitted_until_its_requests_are_used() -> None:
    clock, app = Clock(), App()
    keyed = auth(app, clock)
    assert keyed._admission
    keyed._admission._allowances = {"alice": Allowance(ALICE, LocalQuotas(clock), clock)}

    async def calls() -> None:
        for status in (200, 200, 200, 429, 429):
            client = Caller(KEYED)
            await keyed(client.scope, client.receive, client.send)
            assert client.status == status
        assert client.headers[b"retry-after"] == b"4"
        clock.now += 3.5
        client = Caller(KEYED)
        await keyed(client.scope, client.receive, client.send)
        assert (client.status, client.headers[b"retry-after"]) == (429, b"1"), "half a second, rounded up"
        assert "3 requests at once and 0.25 a second" in client.answer["error"]
        clock.now += 0.5
        client = Caller(KEYED)
        await keyed(client.scope, client.receive, client.send)
        assert client.status == 200

    asyncio.run(calls())


def test_websockets_are_closed() -> None:
    sent: list[Any] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def nothing() -> Message:
        raise AssertionError("nothing is read")

    scope: Scope = {"type": "websocket", "path": "/v2", "headers": []}
    asyncio.run(auth(App())(scope, nothing, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]


@pytest.mark.parametrize("per_second", [0.5, 30.0, 1000.0])
@pytest.mark.parametrize("servers", [1, 3])
def test_the_limit_holds_for_a_key_as_a_whole(per_second: float, servers: int) -> None:
    """Several servers, more requests than allowed at each: admitted are the burst and the rate, and not much less."""
    clock, burst, seconds = Clock(), 20, 10
    key = ALICE.model_copy(update={"requests_per_second": per_second, "burst": burst})
    quotas = LocalQuotas(clock)
    allowances = [Allowance(key, quotas, clock) for _ in range(servers)]

    async def crowd() -> int:
        admitted = 0
        for _ in range(seconds * 100):
            clock.now += 0.01
            waits = await asyncio.gather(*[each.spend() for each in allowances for _ in range(12)])
            admitted += sum(wait == 0 for wait in waits)
        return admitted

    admitted = asyncio.run(crowd())
    ahead = servers * int(PREFETCH_SECONDS * per_second)
    assert admitted <= burst + per_second * seconds
    assert admitted >= burst + per_second * seconds - 1 - ahead - servers


def test_few_calls_to_the_quotas_for_many_requests() -> None:
    clock = Clock()
    key = ALICE.model_copy(update={"requests_per_second": 1000.0, "burst": 1000})
    quotas = LocalQuotas(clock)
    allowance = Allowance(key, quotas, clock)

    async def run() -> None:
        assert await asyncio.gather(*[allowance.spend() for _ in range(1000)]) == [0.0] * 1000
        waits = await asyncio.gather(*[allowance.spend() for _ in range(1000)])
        assert all(math.isclose(wait, 0.001) for wait in waits)

    asyncio.run(run())
    assert quotas.calls == math.ceil(1000 / 101) + 1


def test_what_is_taken_ahead_and_not_used_is_forgotten() -> None:
    clock = Clock()
    key = ALICE.model_copy(update={"requests_per_second": 100.0, "burst": 100})
    quotas = LocalQuotas(clock)
    left, right = (Allowance(key, quotas, clock) for _ in range(2))

    async def run() -> None:
        assert await left.spend() == 0
        clock.now += 60
        assert [await right.spend() for _ in range(100)] == [0.0] * 100
        assert await left.spend() > 0, "what it took a minute ago would be beyond the limit"

    asyncio.run(run())


def test_serve_learns_of_the_settings_through_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(middleware.SETTINGS, raising=False)
    monkeypatch.setattr(uvicorn.config, "HTTP_PROTOCOLS", dict(uvicorn.config.HTTP_PROTOCOLS))
    (pipeline,) = middlewares()
    assert pipeline.cls is Pipeline and pipeline.kwargs["at_once"] is None
    settings = ServeSettings(
        http=Http(origins=("https://lab.example",)),
        connections=Connections(header_kb=7),
        limits=Limits(body_mb=1),
        keys=(ALICE,),
    )
    for name, value in middleware.environment(settings).items():
        monkeypatch.setenv(name, value)
    (pipeline,) = middlewares()
    given = cast(ServeSettings, pipeline.kwargs["settings"])
    assert given.model_dump(include=middleware.SECTIONS) == settings.model_dump(include=middleware.SECTIONS)
    assert (pipeline.kwargs["at_once"], pipeline.kwargs["direct"]) == (128, False)
    assert uvicorn.config.HTTP_PROTOCOLS["auto"].limits == settings.connections  # type: ignore[attr-defined]
    assert TOKEN not in str(middleware.environment(settings))


def test_no_replica_starts_where_serve_does_not_ask_for_the_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """As under a RayService, whose nodes were started without the variables."""
    settings = ServeSettings(keys=(ALICE,))
    for name, value in middleware.environment(settings).items():
        monkeypatch.setenv(name, value)
    middleware.check_keys_required(settings)
    for name, value in ((middleware.SETTINGS, "{}"), (middleware.CALLBACK, "")):
        with monkeypatch.context() as changed:
            changed.setenv(name, value)
            with pytest.raises(ClusterError, match="does not require the keys"):
                middleware.check_keys_required(settings)
            middleware.check_keys_required(ServeSettings())
