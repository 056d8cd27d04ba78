"""One line for each request, with the key that it was found to have."""

import asyncio
import logging
import re

import pytest
from starlette.types import Receive, Scope, Send

from serving.http.keys import new_key
from serving.http.pipeline import Pipeline
from serving.http.settings import Key, Logging
from tests.serving.http.test_auth import LocalQuotas
from tests.serving.http.test_bodies import SETTINGS, App, Client
from tests.serving.http.test_quotas import Clock
from tests.serving.http.test_traces import VALID


def test_a_line_says_who_asked_for_what_and_how_it_ended(caplog: pytest.LogCaptureFixture) -> None:
    async def leaves(scope: Scope, receive: Receive, send: Send) -> None:
        pass

    token, alice = new_key("alice")
    headers = [(b"authorization", f"Bearer {token}".encode()), (b"traceparent", VALID.encode())]
    no_keys: tuple[Key, ...] = ()
    with caplog.at_level(logging.INFO, logger="ray.serve"):
        for app, path, keys in (
            (App(), "/v2", no_keys),
            (App(429), "/v2/models/a\nPOST /b", (alice,)),
            (leaves, "/" + "x" * 1000, no_keys),
        ):
            client = Client([b""], path=path)
            client.scope |= {"method": "GET", "headers": headers if keys else []}
            settings = SETTINGS.model_copy(update={"keys": keys, "logging": Logging(access=True)})
            pipeline = Pipeline(app, settings, quotas=LocalQuotas(Clock()))
            asyncio.run(pipeline(client.scope, client.receive, client.send))
    first, second, third = [record.getMessage() for record in caplog.records]
    assert re.fullmatch(r"GET /v2 key - trace -: 200 in \d+\.\d ms", first)
    assert second.startswith(rf"GET /v2/models/a\nPOST /b key alice trace {VALID}: 429 in ")
    assert third.startswith(f"GET /{'x' * 199} key - trace -: 499 in ")
