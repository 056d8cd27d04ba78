"""Honest clients beside a hostile one, for minutes: nothing of theirs fails, little is slower, and memory stays flat.

SOAK_SECONDS=60 pytest -s -m slow tests/serving/test_soak.py        # another time than ten minutes
"""

import asyncio
import contextlib
import gzip
import json
import os
import random
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from statistics import fmean, quantiles
from typing import Any

import numpy as np
import psutil
import pytest

from serving.http.uploads import to_png
from tests.processes import titles
from tests.serving.conftest import HOST, Served
from tests.serving.deployments.test_attack_server import message as attack_message
from tests.serving.messages import message
from tests.serving.models import bits, pixels

SECONDS = float(os.environ.get("SOAK_SECONDS", "600"))
HONEST = 32
SLOWER = 5  # times as slow as without the hostile client
GROWTH = 48 << 20  # bytes that the last third of the time may hold more than the second
HOSTILE_ADDRESS = "127.0.0.3"  # other than that of the honest: without keys, bodies are counted by address
AT_ONCE = 12  # connections with the same hostile request
SERVE = ("ServeReplica", "ProxyActor", "HAProxyManager", "ServeController", "haproxy")


def post(path: str, body: bytes, *headers: str, media: str = "application/json") -> bytes:
    lines = [f"POST /v2/models/{path} HTTP/1.1", "Host: localhost", f"Content-Type: {media}", *headers]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


def get(path: str, *headers: str, method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", *(headers or ["Host: localhost"]), "", ""]).encode()


def tree(tree: Mapping[str, Any]) -> bytes:
    return json.dumps(tree).encode()


def hostile_requests() -> dict[str, list[bytes]]:
    """What a hostile client sends, by its aim. Each is sent on several connections, whose answers nobody reads."""
    short = tree(message(bits(1, 16).numpy()))
    long = tree(message(bits(8, 2000).numpy(), iterations=400))
    stream = tree(message(bits(4, 4000).numpy(), iterations=2000))
    png = to_png(np.zeros((3, 300, 330), np.float32))
    bomb = gzip.compress(b" " * (64 << 20))
    image = pixels(1).numpy()
    digits = [message(bits(1, 8).numpy())]
    digits[0]["inputs"][0]["shape"] = [10**4000]
    return {
        "bodies that never end": [post("sums/infer", short)[:-20], post("sums/infer", b"")[:-5] + b"9\r\n\r\n{"],
        "long work": [post("sums/infer", gzip.compress(long), "Content-Encoding: gzip")],
        "attacks": [post("digits/attack", tree(attack_message(image, steps=1000)))],
        "memory": [post("photos/infer", png, media="image/png"), post("sums/infer", bomb, "Content-Encoding: gzip")],
        "headers": [get("/v2", "X: " + "x" * (4 << 20)), get("/v2", *["X: x"] * 5000), b"POST /v2/models/su", b""],
        "more than there are places": [post("sums/infer", short)] * 12,
        "streams that nobody reads": [post("sums/infer_stream", stream)],
        "foreign pages": [
            post("sums/infer", long, media="text/plain"),
            post("sums/infer", long, "Origin: http://evil.example"),
            get("/v2", "Host: evil.example"),
        ],
        "nonsense": [
            post("sums/infer", tree(digits[0])),
            post("digits/attack", tree(attack_message(image, epsilon=10**309))),
            post("digits/attack", tree(attack_message(image, epsilon=1e-39, norm="L1"))),
            post("sums/infer", gzip.compress(short) + gzip.compress(short), "Content-Encoding: GZIP"),
            post("x" * 20_000 + "/infer", short),
            get("/v2", "Host: localhost", "Connection: Upgrade", "Upgrade: websocket"),
            get("/v2/health/live", method="HEAD"),
            get("/v2/models/sums/infer", method="DELETE"),
            get(f"/v2/models/{'%00' * 2000}/stats"),
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
        ],
    }


def ports_of_ray(but: int) -> list[int]:
    """Of all that this process has started, where a stranger on this machine may knock."""
    ports = set()
    for each in titles(os.getpid()):
        with contextlib.suppress(psutil.Error):
            ports |= {at.laddr.port for at in each.net_connections("tcp") if at.status == psutil.CONN_LISTEN}
    return sorted(ports - {but})


class Hostile:
    """A client that sends all that it has, in a new order each time. cycles: how often it has."""

    def __init__(self, port: int) -> None:
        self.cycles = 0
        self._port, self._draw = port, random.Random(0)
        self._requests = [request for requests in hostile_requests().values() for request in requests]

    async def go_on(self) -> None:
        while True:
            for request in self._draw.sample(self._requests, len(self._requests)):
                await self._send(request, [self._port] * AT_ONCE, self._draw.uniform(0.1, 1))
            ports = await asyncio.to_thread(ports_of_ray, self._port)
            await self._send(get("/api/jobs/"), ports, 0.1)
            self.cycles += 1

    async def _send(self, request: bytes, ports: list[int], seconds: float) -> None:
        """Open the connections at once, send, and leave some time later, whatever has come."""
        async with contextlib.AsyncExitStack() as opened:
            for port in ports:
                with contextlib.suppress(OSError):
                    host = HOST if port == self._port else "127.0.0.1"
                    _, writer = await asyncio.open_connection(host, port, local_addr=(HOSTILE_ADDRESS, 0))
                    opened.callback(writer.close)
                    writer.write(request)
            await asyncio.sleep(seconds)


async def honest(port: int, until: float) -> list[float]:
    """Seconds that each request took of a client that asks until a time of the loop. Nothing may go wrong."""
    request, loop = post("sums/infer", tree(message(bits(1, 16).numpy()))), asyncio.get_running_loop()
    taken = []
    reader, writer = await asyncio.open_connection(HOST, port)
    with contextlib.closing(writer):
        while (began := loop.time()) < until:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 "), head
            fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
            await reader.readexactly(int(fields[b"content-length"]))
            taken.append(loop.time() - began)
    return taken


async def p99(port: int, seconds: float) -> float:
    """Of the requests of all honest clients, in seconds."""
    until = asyncio.get_running_loop().time() + seconds
    taken = await asyncio.gather(*[honest(port, until) for _ in range(HONEST)])
    return quantiles([each for of_client in taken for each in of_client], n=100)[98]


class Watch:
    """The memory of Serve's processes as time goes on: bytes that no other process shares, by process."""

    def __init__(self) -> None:
        self.held: dict[str, list[float]] = defaultdict(list)

    async def go_on(self) -> None:
        while True:
            await asyncio.to_thread(self._look)
            await asyncio.sleep(1)

    def _look(self) -> None:
        for process, title in titles(os.getpid()).items():
            name = next((name for name in SERVE if name in title), None)
            with contextlib.suppress(psutil.Error):
                if name:
                    self.held[f"{name} {process.pid}"].append(process.memory_full_info().uss)

    def thirds(self) -> Iterator[tuple[str, list[float]]]:
        """The mean in each third of the time, of each process."""
        for name, held in self.held.items():
            yield name, [fmean(part) for part in np.array_split(held, 3)]


@pytest.mark.slow
def test_honest_clients_beside_a_hostile_one(served: Served) -> None:
    port = int(served.address.rpartition(":")[2])
    hostile, watch = Hostile(port), Watch()

    async def run() -> tuple[float, float]:
        await p99(port, min(5, SECONDS / 10))  # models are loaded
        alone = await p99(port, max(10, SECONDS / 20))
        others = [asyncio.create_task(each.go_on()) for each in (hostile, watch)]
        beside = await p99(port, SECONDS)
        for other in others:
            assert not other.done(), other.exception()
            other.cancel()
        return alone, beside

    began = time.monotonic()
    alone, beside = asyncio.run(run())
    print(f"\n{time.monotonic() - began:.0f} s, {hostile.cycles} cycles of hostile requests")
    print(f"p99 {1000 * alone:.0f} ms alone, {1000 * beside:.0f} ms beside the hostile client")
    thirds = dict(watch.thirds())
    for name, means in thirds.items():
        print(f"{name}: {', '.join(f'{mean / 2**20:.0f}' for mean in means)} MiB in the thirds of the time")
    assert hostile.cycles, "too short a time to send all"
    assert beside < SLOWER * alone
    assert sum(means[2] - means[1] for means in thirds.values()) < GROWTH
