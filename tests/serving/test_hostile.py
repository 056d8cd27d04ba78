"""What one client cannot take from the others: each hostile request for real, beside honest ones."""

import concurrent.futures
import contextlib
import json
import socket
import time

import httpx
import numpy as np
import pytest

from serving.http.uploads import to_png
from tests.processes import wait_for
from tests.serving.conftest import Served
from tests.serving.http.test_connections import until_closed
from tests.serving.messages import message, stats
from tests.serving.models import bits
from tests.serving.unanswered import answered, asked, connections

HONEST_SECONDS = 10.0  # far above what an honest request takes on a busy machine, far below what hostile ones took


def honest(served: Served) -> float:
    """Ask for health and for a prediction. Seconds that both took."""
    began = time.monotonic()
    with served.http() as client:
        assert client.get("/v2/health/live", timeout=30).status_code == 200
        answer = client.post("/v2/models/sums/infer", json=message(bits(1, 8).numpy()), timeout=30)
    assert answer.status_code == 200, answer.text
    return time.monotonic() - began


def opened_by(served: Served, count: int, first: bytes) -> contextlib.AbstractContextManager[list[socket.socket]]:
    """As `connections`, with what the server asks for in the headers, where they are whole."""
    head, end, rest = first.partition(b"\r\n\r\n")
    needed = b"".join(f"\r\n{name}: {value}".encode() for name, value in served.headers.items() if end)
    return connections(served.address, count, head + needed + end + rest, served.trusting)


HEAD = b"POST /v2/models/sums/infer HTTP/1.1\r\nHost: localhost\r\n"


def test_bodies_that_never_end_take_no_place(served: Served) -> None:
    """140 of them once stopped all models: a replica takes 128 requests at once."""
    with opened_by(served, 140, HEAD + b"Content-Length: 1000\r\n\r\n{") as opened:
        assert honest(served) < HONEST_SECONDS
        assert opened[0].recv(20).startswith(b"HTTP/1.1 408 ")
    assert honest(served) < HONEST_SECONDS


def test_half_a_head_and_nothing_are_closed(served: Served) -> None:
    with opened_by(served, 50, HEAD[:30]) as halves, opened_by(served, 50, b"") as silent:
        assert honest(served) < HONEST_SECONDS
        for opened in (halves[0], silent[0]):
            assert until_closed(opened)[:12] in (b"", b"HTTP/1.1 408")


def test_a_header_without_end_is_cut_off(served: Served) -> None:
    with connections(served.address, 1, HEAD + b"X: ") as (opened,):
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 100 << 20:
                sent += opened.send(b"x" * (1 << 16))
        assert sent < 20 << 20
    assert honest(served) < HONEST_SECONDS


def test_long_work_of_one_does_not_delay_short_work_of_another(served: Served) -> None:
    """Minutes of work on long strings, several times at once, and requests that take milliseconds."""
    with asked(served.address, "sums/infer", message(bits(4, 4000).numpy(), iterations=9_000), 3) as long:
        wait_for(lambda: stats(served)["running"]["batches"])
        assert max(honest(served) for _ in range(3)) < HONEST_SECONDS
        assert not answered(long)
    wait_for(lambda: not stats(served)["running"]["batches"], seconds=20)  # of work that takes minutes


def test_many_large_images_are_bounded_in_memory(served: Served) -> None:
    """Each is small as a file. What does not fit now is 503 with Retry-After, and the rest is answered."""
    png = to_png(np.zeros((3, 300, 330), np.float32))
    headers = {"Content-Type": "image/png"}

    def ask(_: int) -> httpx.Response:
        return httpx.post(f"{served.url}/v2/models/photos/infer", content=png, headers=headers, timeout=100)

    with concurrent.futures.ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(ask, range(32)))
    assert {each.status_code for each in answers} <= {200, 503}
    assert all(each.headers["retry-after"] for each in answers if each.status_code == 503)
    assert sum(each.status_code == 200 for each in answers) >= 8
    assert honest(served) < HONEST_SECONDS


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
    ],
)
def test_pages_of_others_cannot_send_work(served: Served, headers: dict[str, str], status: int) -> None:
    body = json.dumps(message(bits(1, 8).numpy())).encode()
    answer = httpx.post(f"{served.url}/v2/models/sums/infer", content=body, headers=headers)
    assert answer.status_code == status and answer.json()["error"]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("sums/infer", {"inputs": [{"name": "input", "datatype": "FP32", "shape": [10**4000], "data": [1]}]}, 400),
        ("digits/attack", {"inputs": [], "parameters": {"epsilon": 10**309}}, 400),
        ("digits/attack", {"inputs": [], "parameters": {"epsilon": 1e-39, "norm": "L1"}}, 400),
        ("x" * 20_000 + "/infer", {}, 404),
    ],
)
def test_numbers_and_names_beyond_reason_get_a_short_sentence(
    served: Served, path: str, body: dict[str, object], status: int
) -> None:
    answer = httpx.post(f"{served.url}/v2/models/{path}", json=body, timeout=30)
    assert answer.status_code == status and len(answer.json()["error"]) <= 1001


def test_a_request_to_change_the_protocol_is_answered(served: Served) -> None:
    headers = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Key": "x" * 22 + "==",
               "Sec-WebSocket-Version": "13"}  # fmt: skip
    assert httpx.get(f"{served.url}/v2", headers=headers, timeout=30).status_code == 200


def test_a_stream_that_nobody_reads_is_not_computed(served: Served) -> None:
    body = json.dumps(message(bits(4, 4000).numpy(), iterations=2000)).encode()
    head = b"POST /v2/models/sums/infer_stream HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"

    def streamed() -> int:
        with served.http() as client:
            statistics = client.get("/v2/models/sums/stats").json()["model_stats"]
        return sum(int(version["streamed"]) for version in statistics)

    before = streamed()

    def rests() -> bool:
        count = streamed()
        time.sleep(0.5)
        return streamed() == count > before

    with opened_by(served, 1, head + b"Content-Length: %d\r\n\r\n" % len(body) + body):
        wait_for(rests)
        assert streamed() - before < 600  # of 2,000: what the buffers of the kernel hold, between all on the way
    assert honest(served) < HONEST_SECONDS
