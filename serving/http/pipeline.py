"""What every request passes in an HTTP server of Serve before it takes a place at a replica, and its answer after it.

In this order: does it ask whether the server lives, by which name and from whose page does it come, does it ask for a
file of the pages, whose key does it show; then its body is read, and a place waited for. What is refused on the way is
answered here.
"""

import asyncio
import time
from typing import Any

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import AssayError, TooSlowError
from serving.http import access_log, health
from serving.http.auth import Admission, TakesFromBuckets, is_open
from serving.http.bodies import Bodies
from serving.http.connections import LEAVE
from serving.http.exchange import Exchange
from serving.http.headers import UNSHOWN, Headers, first_values, values
from serving.http.keys import HEADER as KEY_HEADER
from serving.http.origins import Origins
from serving.http.owners import KEY, owner_of
from serving.http.places import Places
from serving.http.protocol import HEADER_LENGTH
from serving.http.settings import ServeSettings
from serving.http.streams import TELLS_OF_PARTS, PartsSent
from serving.http.traces import HEADER as TRACE_HEADER
from serving.http.traces import trace_of
from serving.pages import files as pages

SERVE_PATHS = "/-/"  # Serve's own: its health and its routes, which read no body
# Headers by which Serve is told not to look after a request: it would start a task that sees whether the client leaves,
# and another that ends in time. In a replica both are done here. A client may not tell it so.
TIMEOUT, UNWATCHED = b"x-request-timeout-seconds", b"x-request-disconnect-disabled"
WATCHED_HERE = ((TIMEOUT, b"0"), (UNWATCHED, b"?1"))
REQUEST_ID = b"x-request-id"  # the one header of a client that Serve reads in a replica: it would look at each of them


class Pipeline:
    """ASGI middleware.

    at_once: requests that are passed on at the same time; None: any number. direct: to a replica in this process, as
    behind HAProxy; else to Serve's proxy, which looks for one. quotas: of requests, if not those of the cluster.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: ServeSettings,
        at_once: int | None = None,
        direct: bool = False,
        quotas: TakesFromBuckets | None = None,
    ) -> None:
        http = settings.http
        self._app, self._pass_on = app, self._to_replica if direct else self._to_proxy
        self._seconds, self._logged = http.request_seconds, settings.logging.access
        self._origins = Origins(http.names, http.origins)
        self._files = pages.files()
        self._admission = Admission(settings.keys, quotas) if settings.keys else None
        self._bodies = Bodies(settings.limits.body_bytes, settings.connections)
        self._deadlines = Deadlines(http.request_seconds)
        self._places = None if at_once is None else Places(at_once, settings.queue.waiting)
        self._handle: ASGIApp = self._check
        if http.origins:
            self._handle = CORSMiddleware(
                self._check,
                allow_origins=http.origins,
                allow_methods=("GET", "POST"),
                allow_headers=("Authorization", "Content-Type", "Content-Encoding", HEADER_LENGTH, TRACE_HEADER),
                expose_headers=("*",),  # the outputs about an attack on an uploaded file are headers as well
            )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":  # no endpoint uses them
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        exchange = Exchange(receive, send, trace_of(next(iter(values(scope, TRACE_HEADER)), None)))
        try:
            await self._handle(scope, exchange.receive, exchange.send)
        except AssayError as error:
            if not exchange.has_begun:
                await exchange.refuse(error)
        finally:
            if self._logged:
                key = scope.get(KEY, access_log.NO_KEY)
                access_log.log(scope["method"], scope["path"], key, exchange.trace, exchange.status, began)

    async def _check(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer what needs no replica, and pass on what is admitted. AssayError about what is refused."""
        method, path, headers = scope["method"], scope["path"], first_values(scope)
        if health.is_asked(method, path):
            await health.answer(send)
            return
        is_serves = path.startswith(SERVE_PATHS)
        if not is_serves:
            self._origins.check(method, headers)
        if file := self._files.get(pages.address(path)):
            await file.answer(method, path, headers, send)
            return
        if self._admission and not is_open(method, path, headers):
            key = self._admission.holder(values(scope, KEY_HEADER))
            scope[KEY] = key.name
            await self._admission.spend(key)
        if is_serves:
            await self._app(scope, receive, send)
        else:
            await self._queue(scope, headers, receive, send)

    async def _queue(self, scope: Scope, headers: Headers, receive: Receive, send: Send) -> None:
        """Read the body, then wait for a place."""
        key = scope.get(KEY)
        with self._bodies.hold(owner_of(scope)) as body:
            if not await self._bodies.read(body, scope, headers, receive):
                return  # the client left
            receive = body.replay(receive)
            if self._places is None:
                await self._pass_on(scope, receive, send)
            elif await self._has_entered(self._places, scope, key):
                try:
                    await self._pass_on(scope, receive, send)
                finally:
                    self._places.leave(key)

    async def _has_entered(self, places: Places, scope: Scope, key: str | None) -> bool:
        """Wait for a place. False: the client left before there was one. BusyError as Places.enter."""
        task = asyncio.current_task()
        assert task is not None
        scope[LEAVE] = task.cancel
        try:
            await places.enter(key)
        except asyncio.CancelledError:
            return False
        finally:
            del scope[LEAVE]
        return True

    async def _to_proxy(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["headers"] = [each for each in scope["headers"] if each[0] not in (TIMEOUT, UNWATCHED)]
        parts = PartsSent(receive, send)
        scope[TELLS_OF_PARTS] = True
        try:
            await self._app(scope, parts.receive, parts.send)
        finally:
            parts.close()

    async def _to_replica(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Ends when the client leaves. TooSlowError when the request has taken too long."""
        scope[UNSHOWN] = headers = scope["headers"]
        scope["headers"] = [*(each for each in headers if each[0] == REQUEST_ID), *WATCHED_HERE]
        task = asyncio.current_task()
        assert task is not None
        scope[LEAVE] = task.cancel
        self._deadlines.add(task)
        try:
            await self._app(scope, receive, send)
        except asyncio.CancelledError:  # Serve does not pass it on
            if not self._deadlines.has_passed(task):
                raise
        finally:
            del scope[LEAVE]
            is_late = self._deadlines.remove(task)
        if is_late:
            task.uncancel()
            raise TooSlowError(f"the answer must be there within {self._seconds:g} s (http.request_seconds)")


class Deadlines:
    """Cancels each task so many seconds after it was added. There is one timer, for the first of them."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._ends: dict[asyncio.Task[Any], float] = {}  # the first to end is the first
        self._late: set[asyncio.Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, task: asyncio.Task[Any]) -> None:
        loop = asyncio.get_running_loop()
        self._ends[task] = loop.time() + self._seconds
        if self._timer is None:
            self._timer = loop.call_later(self._seconds, self._check)

    def has_passed(self, task: asyncio.Task[Any]) -> bool:
        return task in self._late

    def remove(self, task: asyncio.Task[Any]) -> bool:
        """Whether its deadline has passed."""
        self._ends.pop(task, None)
        is_late = task in self._late
        self._late.discard(task)
        return is_late

    def _check(self) -> None:
        loop, self._timer = asyncio.get_running_loop(), None
        for task, end in list(self._ends.items()):
            if end > loop.time():
                self._timer = loop.call_at(end, self._check)
                return
            del self._ends[task]
            self._late.add(task)
            task.cancel()
