"""One line for each request, with the key that it was found to have."""

import asyncio
import logging
import re

import pytest
from starlette.types import Receive, Scope, Send

from serving.http.access_log import AccessLog
from serving.http.bodies import OWNER
from serving.http.traces import TRACE
from tests.serving.http.test_bodies import App, Client


def test_a_line_says_who_asked_for_what_and_how_it_ended(caplog: pytest.LogCaptureFixture) -> None:
    async def leaves(scope: Scope, receive: Receive, send: Send) -> None:
        pass

    async def keyed(scope: Scope, receive: Receive, send: Send) -> None:
        scope[OWNER], scope[TRACE] = "alice", "00-a-b-01"
        await App(429)(scope, receive, send)

    with caplog.at_level(logging.INFO, logger="ray.serve"):
        for app, path in ((App(), "/v2"), (keyed, "/v2/models/a\nPOST /b"), (leaves, "/" + "x" * 1000)):
            client = Client([b""], path=path)
            client.scope["method"] = "GET"
            asyncio.run(AccessLog(app)(client.scope, client.receive, client.send))
    first, second, third = [record.getMessage() for record in caplog.records]
    assert re.fullmatch(r"GET /v2 key - trace -: 200 in \d+\.\d ms", first)
    assert second.startswith(r"GET /v2/models/a\nPOST /b key alice trace 00-a-b-01: 429 in ")
    assert third.startswith(f"GET /{'x' * 199} key - trace -: 499 in ")
