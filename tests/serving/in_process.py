"""The whole server without Serve: the middleware and a replica of each deployment in this process.

Serve adds the proxy, the queues and the collection of requests that come together; requests are batched as they come.
"""

import os
from typing import Any
from unittest import mock

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.deployments.attack_server import AttackServer, Reply
from serving.deployments.batching import Item
from serving.deployments.server import Server
from serving.http import middleware
from serving.http.settings import ServeSettings


class AttackHandle:
    """The deployment that attacks, as the handle of Serve offers it."""

    def __init__(self, server: AttackServer) -> None:
        self._server = server
        self.attack = self

    async def remote(self, *arguments: Any) -> Reply:
        return await self._server.attack(*arguments)


def server(settings: ServeSettings, store_uri: str) -> Server:
    """A replica, with attacks if the settings have them."""
    with mock.patch.object(os, "nice"), mock.patch.dict(os.environ, middleware.environment(settings)):
        attacks = AttackHandle(AttackServer(settings.for_attacks(), store_uri)) if settings.attacks.enabled else None
        made = Server(settings, store_uri, attacks)  # type: ignore[arg-type]

    async def gather(item: Item) -> None:
        made._batcher.add([item])

    made._gather = gather  # type: ignore[method-assign, assignment]
    return made


def application(settings: ServeSettings, store_uri: str) -> ASGIApp:
    """Everything that a request passes but for Serve itself."""
    replica = server(settings, store_uri)

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        response = await replica(Request(scope, receive))
        await response(scope, receive, send)

    app: ASGIApp = answer
    with mock.patch.dict(os.environ, middleware.environment(settings)):
        for each in middleware.middlewares():  # the last one is outermost
            app = each.cls(app, *each.args, **each.kwargs)
    return app
