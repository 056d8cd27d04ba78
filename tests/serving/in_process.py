"""The whole server without Serve: the middleware and a replica of each deployment in this process.

Serve adds the proxy and its queues.
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import uvicorn
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.deployments.attack_server import AttackServer, Reply
from serving.deployments.server import Server
from serving.http import connections, middleware
from serving.http.quotas import Bucket, Buckets
from serving.http.settings import ServeSettings


class AttackHandle:
    """The deployment that attacks and sonifies, as the handle of Serve offers it."""

    def __init__(self, server: AttackServer) -> None:
        self._server = server
        self.optimise = self

    async def remote(self, *arguments: Any) -> Reply:
        return await self._server.optimise(*arguments)


class QuotasHere(Buckets):
    """The quotas of the cluster, kept in this process."""

    async def take(self, bucket: Bucket, amount: float, more: int = 0) -> tuple[float, float]:  # type: ignore[override]
        return super().take(bucket, amount, more)


def server(settings: ServeSettings, store_uri: str) -> Server:
    """A replica, with attacks if the settings have them."""
    with _here(settings):
        attacks = AttackHandle(AttackServer(settings.for_attacks(), store_uri)) if settings.attacks.enabled else None
        return Server(settings, store_uri, attacks)  # type: ignore[arg-type]


@contextmanager
def _here(settings: ServeSettings) -> Iterator[None]:
    """While the parts are made: they take their settings from the environment, and what is Serve's is not touched."""
    quotas = QuotasHere()
    with (
        mock.patch.dict(os.environ, middleware.environment(settings)),
        mock.patch.object(os, "nice"),
        mock.patch.object(connections, "install"),
        mock.patch("serving.http.auth.Quotas", lambda: quotas),
        mock.patch("serving.http.quotas.Quotas", lambda: quotas),
    ):
        yield


@contextmanager
def listening(settings: ServeSettings, store_uri: str) -> Iterator[str]:
    """The same behind a port of this machine, which is that of the settings. Its address."""
    app = application(settings, store_uri)
    running = uvicorn.Server(uvicorn.Config(app, port=settings.http.port, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=running.run)
    thread.start()
    while not running.started:
        time.sleep(0.01)
    yield f"http://{settings.http.host}:{settings.http.port}"
    running.should_exit = True
    thread.join()


def application(settings: ServeSettings, store_uri: str) -> ASGIApp:
    """Everything that a request passes but for Serve itself."""
    replica = server(settings, store_uri)

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        response = await replica(Request(scope, receive))
        await response(scope, receive, send)

    app: ASGIApp = answer
    with _here(settings):
        for each in middleware.middlewares():  # the last one is outermost
            app = each.cls(app, *each.args, **each.kwargs)
    return app
