"""How requests are passed on: to a replica in the same process, or to Serve's proxy. Other tests have the checks."""

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from serving.http.connections import bounded
from serving.http.pipeline import TIMEOUT, UNWATCHED, Pipeline
from serving.http.settings import Connections, Http
from tests.ports import free_port
from tests.processes import wait_for
from tests.serving import virtual_time
from tests.serving.http.test_bodies import SETTINGS, App, Client
from tests.serving.http.test_connections import connection


class Asked(App):
    """Keeps the headers."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.headers = dict(scope["headers"])  # as Serve reads them: of two values the last
        await super().__call__(scope, receive, send)


@pytest.mark.parametrize("direct", [True, False])
def test_a_client_cannot_tell_serve_to_compute_for_ever(direct: bool) -> None:
    app, client = Asked(), Client([b""])
    client.scope["headers"] = [(TIMEOUT.encode(), b"1000000"), (UNWATCHED.encode(), b"?1"), (b"x-other", b"1")]
    virtual_time.run(Pipeline(app, SETTINGS, direct=direct)(client.scope, client.receive, client.send))
    assert client.status == 200
    watched_here = {TIMEOUT.encode(): b"0", UNWATCHED.encode(): b"?1"}
    assert app.headers == {b"x-other": b"1", **(watched_here if direct else {})}


class Endless(App):
    """Never answers. swallows: as Serve does in a replica, it tells nobody that it was cancelled."""

    def __init__(self, swallows: bool = False) -> None:
        super().__init__()
        self.swallows, self.running, self.cancelled = swallows, False, False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.running = True
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled = True
            if not self.swallows:
                raise


@pytest.mark.parametrize("swallows", [True, False])
def test_a_request_that_takes_too_long_is_ended(swallows: bool) -> None:
    app, client = Endless(swallows), Client([b""])
    settings = SETTINGS.model_copy(update={"http": Http(host="0.0.0.0", request_seconds=7)})
    virtual_time.run(Pipeline(app, settings, direct=True)(client.scope, client.receive, client.send))
    assert app.cancelled and client.status == 408
    assert client.answer == {"error": "the answer must be there within 7 s (http.request_seconds)"}


@pytest.fixture(params=[True, False], ids=["swallows", "raises"])
def listening(request: pytest.FixtureRequest) -> Iterator[tuple[Endless, int]]:
    app, port = Endless(request.param), free_port()
    http = bounded(Connections())
    config = uvicorn.Config(
        Pipeline(app, SETTINGS, direct=True), port=port, http=http, lifespan="off", log_level="critical"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield app, port
    server.should_exit = True
    thread.join()


def test_a_request_ends_when_its_client_leaves(listening: tuple[Endless, int]) -> None:
    app, port = listening
    with connection(port) as client:
        client.sendall(b"POST /v2 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}")
        wait_for(lambda: app.running)
        assert not app.cancelled
    wait_for(lambda: app.cancelled)
