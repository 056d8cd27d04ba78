"""How requests are passed on: to a replica in the same process, or to Serve's proxy. Other tests have the checks."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from serving.http.connections import LEAVE, bounded
from serving.http.headers import first_values
from serving.http.pipeline import TIMEOUT, UNWATCHED, Pipeline
from serving.http.settings import Http, ServeSettings
from tests.ports import free_port
from tests.processes import wait_for
from tests.serving import virtual_time
from tests.serving.http.test_bodies import SETTINGS, App, Client
from tests.serving.http.test_connections import connection


class Asked(App):
    """Keeps the headers."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.headers = dict(scope["headers"])  # as Serve reads them: of two values the last
        self.sent = first_values(scope)
        await super().__call__(scope, receive, send)


@pytest.mark.parametrize("direct", [True, False])
def test_a_client_cannot_tell_serve_to_compute_for_ever(direct: bool) -> None:
    app, client = Asked(), Client([b""])
    client.scope["headers"] = [(TIMEOUT, b"1000000"), (UNWATCHED, b"?1"), (b"x-request-id", b"7"), (b"accept", b"*/*")]
    virtual_time.run(Pipeline(app, SETTINGS, direct=direct)(client.scope, client.receive, client.send))
    assert client.status == 200
    read_by_serve = {TIMEOUT: b"0", UNWATCHED: b"?1"} if direct else {b"accept": b"*/*"}
    assert app.headers == {b"x-request-id": b"7", **read_by_serve}
    assert app.sent["accept"] == "*/*" and app.sent["x-request-id"] == "7"


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


@pytest.mark.parametrize("direct", [True, False])
def test_a_client_that_leaves_while_it_waits_for_a_place_is_not_passed_on(direct: bool) -> None:
    passed_on: list[bytes] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        passed_on.append((await receive())["body"])
        await asyncio.sleep(1)
        await App()(scope, Client([b""]).receive, send)

    async def run() -> None:
        pipeline = Pipeline(app, SETTINGS, at_once=1, direct=direct)
        clients = [Client([name]) for name in (b"first", b"left", b"last")]
        tasks = [asyncio.create_task(pipeline(each.scope, each.receive, each.send)) for each in clients]
        await asyncio.sleep(0.5)
        clients[1].scope.get(LEAVE, lambda: None)()  # as its connection does
        await asyncio.gather(*tasks)
        assert passed_on == [b"first", b"last"] and not clients[1].sent
        assert [each.status for each in (clients[0], clients[2])] == [200, 200]

    virtual_time.run(run())


class Listening:
    """A server of an application that never answers, on an event loop of its own."""

    def __init__(self, app: Endless) -> None:
        self.app, self.port = app, free_port()
        settings = ServeSettings(http=Http(host="0.0.0.0"))
        pipeline = Pipeline(app, settings, direct=True)
        http = bounded(settings.connections)
        self._server = uvicorn.Server(uvicorn.Config(pipeline, http=http, lifespan="off", log_level="critical"))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        with socket.socket() as listener, contextlib.closing(self._loop):
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)  # a body fits into what the kernel holds
            listener.bind(("127.0.0.1", self.port))
            self._loop.run_until_complete(self._server.serve([listener]))

    def __enter__(self) -> "Listening":
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)
        return self

    def __exit__(self, *raised: object) -> None:
        self._server.should_exit = self._server.force_exit = True  # also where a request has not ended
        self._thread.join()

    @property
    def has_begun(self) -> bool:
        """Whether a request is under way, whose body may still be to come."""
        return bool(self._server.server_state.tasks)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """It does nothing meanwhile: what is sent to it waits in the kernel, and comes at once."""
        pauses, goes_on = threading.Event(), threading.Event()

        def pause() -> None:
            pauses.set()
            goes_on.wait()

        self._loop.call_soon_threadsafe(pause)
        pauses.wait()
        yield
        goes_on.set()


@pytest.mark.parametrize("swallows", [True, False])
@pytest.mark.parametrize("size", [2, 150_000])
def test_a_request_ends_when_its_client_leaves(swallows: bool, size: int) -> None:
    """Also where uvicorn reads no further, as so much of the end of its body came at once."""
    app = Endless(swallows)
    with Listening(app) as listening:
        with connection(listening.port) as client:
            client.sendall(b"POST /v2 HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size)
            wait_for(lambda: listening.has_begun)
            with listening.paused():
                client.sendall(b"x" * size)
            wait_for(lambda: app.running)
            assert not app.cancelled
        wait_for(lambda: app.cancelled, seconds=20)
