"""Requests wait their turn, in the order of their coming; what is too much is told to come back."""

import asyncio

from starlette.types import Receive, Scope, Send

from serving.http.keys import new_key
from serving.http.pipeline import Pipeline
from serving.http.settings import Queue
from tests.serving import virtual_time
from tests.serving.http.test_auth import LocalQuotas
from tests.serving.http.test_bodies import SETTINGS, App, Client
from tests.serving.http.test_quotas import Clock

TOKENS, KEYS = zip(*[new_key(name) for name in ("alice", "bob")], strict=True)


class Held(App):
    """Answers when it is told. order: the paths in the order in which they were passed on."""

    def __init__(self) -> None:
        super().__init__()
        self.go, self.order, self.most = asyncio.Event(), list[str](), 0
        self._now = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.order.append(scope["path"])
        self._now += 1
        self.most = max(self.most, self._now)
        await self.go.wait()
        await super().__call__(scope, receive, send)
        self._now -= 1


def client(path: str, token: str | None = None) -> Client:
    made = Client([b""], path=path)
    made.scope["headers"] = [] if token is None else [(b"authorization", f"Bearer {token}".encode())]
    return made


def places(app: Held, at_once: int, waiting: int) -> Pipeline:
    return Pipeline(app, SETTINGS.model_copy(update={"queue": Queue(waiting=waiting)}), at_once)


async def ask(pipeline: Pipeline, app: Held, *clients: Client) -> list[int]:
    tasks = [asyncio.create_task(pipeline(each.scope, each.receive, each.send)) for each in clients]
    await asyncio.sleep(0.01)
    app.go.set()
    await asyncio.gather(*tasks)
    return [each.status for each in clients]


def test_as_many_as_there_are_places_go_on_and_the_others_follow_in_order() -> None:
    async def run() -> None:
        app = Held()
        statuses = await ask(places(app, 2, 3), app, *(client(f"/{number}") for number in range(7)))
        assert statuses == [200] * 5 + [503] * 2
        assert app.order == [f"/{number}" for number in range(5)] and app.most == 2

    virtual_time.run(run())


def test_a_key_has_half_of_the_places_at_most() -> None:
    async def run() -> None:
        app = Held()
        settings = SETTINGS.model_copy(update={"queue": Queue(waiting=2), "keys": KEYS})
        pipeline = Pipeline(app, settings, 2, quotas=LocalQuotas(Clock()))
        alice, bob = TOKENS
        for _ in range(2):  # the places are given back
            app.go.clear()
            clients = [client("/a", token) for token in (alice, alice, alice, bob, bob)]
            assert await ask(pipeline, app, *clients) == [200, 200, 503, 200, 200]

    virtual_time.run(run())


def test_the_health_of_serve_itself_takes_no_place() -> None:
    async def run() -> None:
        app = Held()
        assert await ask(places(app, 1, 0), app, client("/x"), client("/-/healthz"), client("/y")) == [200, 200, 503]

    virtual_time.run(run())
