"""Answers that come as streams of events."""

import asyncio
import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message

from service.store import open_store
from serving.deployments.server import Server
from serving.http.keys import new_key
from serving.http.settings import Attacks, Limits, ServeSettings
from tests.processes import wait_for
from tests.serving import in_process
from tests.serving.conftest import SETTINGS, Served
from tests.serving.messages import events, message, outputs, stats
from tests.serving.models import bits, put


def test_a_stream_tells_every_iteration(served: Served) -> None:
    body = message(bits(2, 6).numpy(), iterations=8, exit="confidence") | {"id": "s"}
    with httpx.stream("POST", f"{served.url}/v2/models/sums/infer_stream", json=body) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        received = list(events(answer.iter_lines()))
    assert [event for event, _ in received] == ["iteration"] * 8 + ["answer"]
    assert [outputs(data)["iterations"] for _, data in received[:-1]] == [[t, t] for t in range(1, 9)]
    assert all(data["id"] == "s" for _, data in received)
    whole = httpx.post(f"{served.url}/v2/models/sums/infer", json=body).json()
    assert outputs(received[-1][1])["prediction"] == outputs(whole)["prediction"]


def test_a_stream_by_get_is_the_same_as_by_post(served: Served) -> None:
    """As EventSource asks for it, which sends no body."""
    url, body = f"{served.url}/v2/models/sums/infer_stream", message(bits(1, 6).numpy(), iterations=4)
    query = {"inputs": json.dumps(body["inputs"]), "iterations": 4}
    with httpx.stream("POST", url, json=body) as posted, httpx.stream("GET", url, params=query) as got:
        assert got.status_code == 200 and list(events(got.iter_lines())) == list(events(posted.iter_lines()))
    for changes, sentence in (
        ({"iteration": 4}, "did you mean 'iterations'?"),
        ({"iterations": -1}, "iterations"),
        ({"inputs": "x"}, "'inputs' is not valid JSON"),
    ):
        answer = httpx.get(url, params=query | changes)
        assert answer.status_code == 400 and sentence in answer.json()["error"]
    assert httpx.head(url, params=query).status_code == 405
    assert httpx.get(f"{served.url}/v2/models/digits/infer_stream", params=query).status_code == 404


def test_what_is_wrong_with_a_stream_is_said_before_it_starts(served: Served) -> None:
    url = f"{served.url}/v2/models/sums/infer_stream"
    answer = httpx.post(url, json=message(bits(1, 8).numpy(), iterations=-1))
    assert answer.status_code == 400 and "iterations" in answer.json()["error"]
    binary = message(bits(1, 8).numpy()) | {"outputs": [{"name": "prediction", "parameters": {"binary_data": True}}]}
    answer = httpx.post(url, json=binary)
    assert answer.status_code == 400 and "JSON" in answer.json()["error"]


def test_a_stream_stops_when_its_client_leaves(served: Served) -> None:
    body = message(bits(1, 16).numpy(), iterations=10_000)
    with httpx.stream("POST", f"{served.url}/v2/models/sums/infer_stream", json=body) as answer:
        for index, _ in enumerate(events(answer.iter_lines())):
            if index == 3:
                assert stats(served)["running"]["streams"] == 1
                break
    wait_for(lambda: not stats(served)["running"]["streams"])
    streamed = stats(served)["streamed"]
    time.sleep(0.5)
    assert stats(served)["streamed"] == streamed < 9_000, "it thinks on"


def test_too_many_streams_are_told_to_come_back(served: Served) -> None:
    body = message(bits(1, 16).numpy(), iterations=10_000)
    url = f"{served.url}/v2/models/sums/infer_stream"
    with contextlib.ExitStack() as open_streams:
        held = []  # an iterator that nobody holds closes its stream
        for _ in range(SETTINGS.limits.streams):
            answer = open_streams.enter_context(httpx.stream("POST", url, json=body))
            held.append(events(answer.iter_lines()))
            next(held[-1])
        busy = httpx.post(url, json=body)
        assert busy.status_code == 503 and busy.headers["retry-after"] == "1" and "streamed" in busy.json()["error"]


def asked_here(folder: Path, settings: ServeSettings, token: str = "") -> tuple[Server, Callable[[], Response]]:
    """A replica in this process, and what asks it for a long stream."""
    store = open_store(str(folder))
    put(store, "sums")
    replica = in_process.server(settings, store.uri)
    body = json.dumps(message(bits(4, 4000).numpy(), iterations=9_000)).encode()

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    headers = [(b"authorization", f"Bearer {token}".encode())] if token else []
    scope = {"type": "http", "method": "POST", "path": "/v2/models/sums/infer_stream", "headers": headers}
    return replica, lambda: asyncio.run(replica(Request({**scope, "query_string": b""}, receive)))


@pytest.mark.parametrize("others", [{"bob": 4}, {"alice": 2, "bob": 1}])
def test_a_stream_for_which_there_is_no_room_is_not_paid_for(tmp_path: Path, others: dict[str, int]) -> None:
    """Of all there are four, and of a key half of them."""
    token, key = new_key("alice")
    replica, ask = asked_here(tmp_path, ServeSettings(keys=(key,), attacks=Attacks(enabled=False)), token)
    replica._inference._streams.update(others)
    buckets: Any = replica._inference._quotas._quotas
    answer = ask()
    assert answer.status_code == 503 and b"streamed answers" in answer.body and not buckets._levels


def test_a_stream_that_would_not_end_gets_400_and_not_an_event(tmp_path: Path) -> None:
    settings = ServeSettings(limits=Limits(stream_values=100), attacks=Attacks(enabled=False))
    replica, ask = asked_here(tmp_path, settings)
    answer = ask()
    assert answer.status_code == 400 and b"must have at most 100 numbers" in answer.body
    assert not replica._memory._held and not replica._inference._streams.total()
