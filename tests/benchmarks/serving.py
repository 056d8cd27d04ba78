"""What a request costs: `assay serve`, by Serve's own proxy and by HAProxy, against FastAPI and the bare model.

All answer the same request with the same model: 16 strings of 32 bits, 15 iterations of thought, in JSON. For each
server in turn, with 1, 16, 128 and 256 clients at once: latency (p50 and p99), requests per second, the CPU time of all
its processes per request, and how many were told to come back (503). Ratios are against FastAPI and uvicorn.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

import torch

from service import models
from service.store import open_store
from tests.ports import free_port
from tests.processes import PATIENCE_SECONDS, started, wait_for
from tests.serving.models import bits, put

MODEL, ROWS, LENGTH, ITERATIONS = "bench", 16, 32, 15
CLIENTS, REQUESTS = (1, 16, 128, 256), 600
PAUSE = 0.1  # seconds after which a request is sent again that was told to come back
TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Measured:
    """latencies: ms of each request, from when it was first sent. rate: requests/s. cpu: ms of each. refused: 503s."""

    latencies: Sequence[float]
    rate: float
    cpu: float
    refused: int

    @property
    def p50(self) -> float:
        return median(self.latencies)

    @property
    def p99(self) -> float:
        return quantiles(self.latencies, n=100)[98]


def request(path: str) -> bytes:
    inputs = bits(ROWS, LENGTH)
    tensor = {"name": "input", "datatype": "FP32", "shape": list(inputs.shape), "data": inputs.flatten().tolist()}
    body = json.dumps({"inputs": [tensor], "parameters": {"iterations": ITERATIONS}}).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return f"{head}\r\n\r\n".encode() + body


async def client(port: int, message: bytes, count: int) -> tuple[list[float], int]:
    """Send a request again and again over one connection, opened anew where the server has closed it.

    Latencies in ms, and how often a request was told to come back. HAProxy closes idle connections when it learns of a
    replica, as soon as it has started.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    taken: list[float] = []
    refused, began = 0, time.perf_counter()
    while len(taken) < count:
        writer.write(message)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            assert not getattr(error, "partial", b""), "the server closed a connection in the middle of an answer"
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            continue
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
        await reader.readexactly(int(fields[b"content-length"]))
        if head.startswith(b"HTTP/1.1 503"):
            refused += 1
            await asyncio.sleep(PAUSE)
            continue
        assert head.startswith(b"HTTP/1.1 200"), head
        taken.append(1000 * (time.perf_counter() - began))
        began = time.perf_counter()
    writer.close()
    return taken, refused


async def load(port: int, message: bytes, clients: int, count: int) -> tuple[list[float], int]:
    done = await asyncio.gather(*[client(port, message, max(count // clients, 4)) for _ in range(clients)])
    return [each for taken, _ in done for each in taken], sum(refused for _, refused in done)


def cpu_seconds(root: int) -> float:
    """CPU time of a process and all its descendants that are alive."""
    parents: dict[int, tuple[int, float]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has just ended
        parents[int(stat.parent.name)] = int(fields[1]), (int(fields[11]) + int(fields[12])) / TICK
    family, size = {root}, 0
    while len(family) > size:
        size = len(family)
        family |= {pid for pid, (parent, _) in parents.items() if parent in family}
    return sum(parents[pid][1] for pid in family if pid in parents)


def measure(command: Sequence[str], port: int) -> dict[int, Measured]:
    """Start a server, wait until it answers, put load of more and more clients on it, end it."""
    message = request(f"/v2/models/{MODEL}/infer")
    measured = {}
    with started(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        wait_for(lambda: answers(port, message), server)
        asyncio.run(load(port, message, 16, REQUESTS // 3))  # warm up
        for clients in CLIENTS:
            before, began = cpu_seconds(server.pid), time.perf_counter()
            latencies, refused = asyncio.run(load(port, message, clients, REQUESTS))
            took, spent = time.perf_counter() - began, cpu_seconds(server.pid) - before
            rate, cpu = len(latencies) / took, 1000 * spent / len(latencies)
            measured[clients] = Measured(latencies, rate, cpu, refused)
        server.terminate()
        server.wait(PATIENCE_SECONDS)
    return measured


def answers(port: int, message: bytes) -> bool:
    """Whether a server has started."""
    try:
        asyncio.run(load(port, message, 1, 1))
    except (OSError, AssertionError, asyncio.IncompleteReadError):
        return False
    return True


def bare(store: str) -> float:
    """ms of the model alone, per request."""
    torch.set_num_threads(1)
    opened = open_store(store)
    network, inputs = models.load(opened, models.find(opened, MODEL)), bits(ROWS, LENGTH)
    taken = []
    with torch.inference_mode():
        for _ in range(REQUESTS // 3):
            began = time.perf_counter()
            network(inputs, ITERATIONS)
            taken.append(1000 * (time.perf_counter() - began))
    return median(taken)


def main() -> None:
    with tempfile.TemporaryDirectory() as store:
        put(open_store(store), MODEL, width=48)
        alone = bare(store)
        print(f"{'the model alone, in this process':38} p50 {alone:.1f} ms")
        ports = [free_port() for _ in range(3)]
        commands = {
            "FastAPI + uvicorn": [sys.executable, "-m", "tests.benchmarks._plain_server", store, MODEL, str(ports[0])],
            "assay serve": _serve(store, "serve.yaml", ports[1]),
            "assay serve, HAProxy": _serve(store, "serve.fast.yaml", ports[2]),
        }
        baseline: dict[int, Measured] | None = None
        for (name, command), port in zip(commands.items(), ports, strict=True):
            measured = measure(command, port)
            baseline = baseline or measured
            _report(name, measured, baseline, alone)


def _serve(store: str, config: str, port: int) -> list[str]:
    options = ["--store", store, "--config", f"configs/{config}", "--port", str(port)]
    return [sys.executable, "-m", "service", "serve", *options]


def _report(name: str, measured: Mapping[int, Measured], baseline: Mapping[int, Measured], bare_ms: float) -> None:
    for clients, here in measured.items():
        there = baseline[clients]
        print(
            f"{name}: {clients} client(s)".ljust(38) + f" p50 {here.p50:6.1f} ms ({here.p50 / there.p50:.2f} of "
            f"FastAPI's)  p99 {here.p99:6.1f} ms ({here.p99 / there.p99:.2f})  {here.rate:.0f} requests/s "
            f"({here.rate / there.rate:.2f})  {here.cpu:.1f} CPU-ms ({here.cpu - bare_ms:+.1f} to the bare model's)  "
            f"{here.refused} told to come back"
        )


if __name__ == "__main__":
    main()
