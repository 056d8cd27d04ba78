"""What a request costs: `assay serve`, with HAProxy and with Serve's own proxy, against FastAPI and the bare model.

Two models answer requests in JSON. The small one takes a string of 16 bits and thinks once: nearly all of the time is
that of the servers. The large one is wide and thinks 15 times about 32 bits: computing 32 requests together takes much
less than computing them one by one. All servers run at once, and load is put on each of them and on the model alone in
turn, several times over, so that whatever else the machine does is the same for all. For 1, 16, 128 and 256 clients at
once: latency (p50 and p99), requests per second, CPU time of each process per request without what it takes when idle,
what all of them take beyond the model alone, and how many requests were told to come back (503). What they take when
idle, in a second, comes first. Ratios are to FastAPI and uvicorn. A table at the end has them beside the goals: at
most 0.9 CPU-ms beyond the model, a median below FastAPI's from 16 clients on, and a throughput with 256 clients of at
least half the best. All of it takes less than nine minutes.

The model alone is asked as the clients ask: again and again where there are many, with pauses in between where there is
one. A process that waits for each request computes it with cold caches, which takes a small model up to twice the time.
"""

import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles

import psutil
import torch
from torch import nn

from service import models
from service.store import open_store
from tests.ports import free_port
from tests.processes import PATIENCE_SECONDS, started, titles, wait_for
from tests.serving.models import bits, put

CLIENTS, REQUESTS, ROUNDS = (1, 16, 128, 256), 300, 5
IDLE_SECONDS = 10.0  # in which Ray exports its metrics once
PAUSE = 0.1  # seconds after which a request is sent again that was told to come back
TOGETHER = 32  # batching.max_rows
ONE_WAITS = 0.001  # seconds between the requests of one client, about
MOST_CPU_MS, SHARED_FROM, LEAST_RATE = 0.9, 16, 0.5  # the goals
PARTS = {  # what a process is called here, by a part of its command line
    "ServeReplica:assay:models": "replica",
    "ServeReplica": "attacks",
    "HAProxyManager": "HAProxy's manager",
    "ProxyActor": "proxy",
    "ServeController": "controller",
    "haproxy": "HAProxy",
    "_plain_server": "server",
}


@dataclass(frozen=True)
class Workload:
    """A model and what is asked of it: one string of `length` bits, some iterations of thought."""

    name: str
    width: int
    length: int
    iterations: int

    @property
    def request(self) -> bytes:
        inputs = bits(1, self.length)
        tensor = {"name": "input", "datatype": "FP32", "shape": list(inputs.shape), "data": inputs.flatten().tolist()}
        body = json.dumps({"inputs": [tensor], "parameters": {"iterations": self.iterations}}).encode()
        head = f"POST /v2/models/{self.name}/infer HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json"
        return f"{head}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body

    def alone(self, network: nn.Module, together: int = 1, pause: float = 0.0) -> float:
        """CPU-ms of the model alone, in this process, per request, with so many of them computed at once.

        pause: seconds before each computation.
        """
        inputs, taken = bits(together, self.length), []
        with torch.inference_mode():
            for _ in range(100):
                time.sleep(pause)
                began = time.process_time()
                network(inputs, self.iterations)
                taken.append(1000 * (time.process_time() - began))
        return median(taken) / together


WORKLOADS = Workload("small", 8, 16, 1), Workload("large", 48, 32, 15)


@dataclass
class Measured:
    """latencies: ms of each request, from when it was first sent.

    Of each round, cpu: ms of a request by process; rates: requests a second. Their medians count, as other machines of
    the same host may take the caches away for a whole round. alone: ms of the model alone in each round.
    """

    alone: list[float]

    latencies: list[float] = field(default_factory=list)
    cpu: list[Mapping[str, float]] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    refused: int = 0

    @property
    def p50(self) -> float:
        return median(self.latencies)

    @property
    def p99(self) -> float:
        return quantiles(self.latencies, n=100)[98]

    @property
    def rate(self) -> float:
        return median(self.rates)

    @property
    def cpu_ms(self) -> float:
        """Of a request, in all processes."""
        return median(sum(each.values()) for each in self.cpu)

    @property
    def beyond(self) -> float:
        """ms of a request, in all processes, beyond the model alone."""
        return median(sum(each.values()) - alone for each, alone in zip(self.cpu, self.alone, strict=True))

    @property
    def cpu_each(self) -> Mapping[str, float]:
        """ms by process, of one request."""
        return {part: median(each.get(part, 0.0) for each in self.cpu) for part in self.cpu[-1]}


Results = dict[int, dict[str, Measured]]  # by how many clients, and server


class Server:
    """A server that runs. idle: CPU-ms a second by process when nothing is asked of it."""

    def __init__(self, name: str, process: "subprocess.Popen[str]", port: int) -> None:
        self.name, self.process, self.port = name, process, port
        self.idle: Mapping[str, float] = {}

    def warm_up(self) -> None:
        for workload in WORKLOADS:
            wait_for(lambda workload=workload: answers(self.port, workload.request), self.process)
            asyncio.run(load(self.port, workload.request, 16, REQUESTS // 3))

    def rest(self) -> None:
        """Measure what it takes when idle."""
        before = cpu_ms(self.process.pid)
        time.sleep(IDLE_SECONDS)
        spent = cpu_ms(self.process.pid)
        self.idle = {part: (spent[part] - before[part]) / IDLE_SECONDS for part in spent}

    def measure(self, message: bytes, clients: int, into: Measured) -> None:
        before, began = cpu_ms(self.process.pid), time.perf_counter()
        latencies, refused = asyncio.run(load(self.port, message, clients, REQUESTS))
        seconds = time.perf_counter() - began
        spent = {
            part: after - before[part] - self.idle.get(part, 0.0) * seconds
            for part, after in cpu_ms(self.process.pid).items()
        }
        into.cpu.append({part: each / len(latencies) for part, each in spent.items()})
        into.rates.append(len(latencies) / seconds)
        into.latencies += latencies
        into.refused += refused


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
    done = await asyncio.gather(*[client(port, message, max(count // clients, 3)) for _ in range(clients)])
    return [each for taken, _ in done for each in taken], sum(refused for _, refused in done)


def answers(port: int, message: bytes) -> bool:
    """Whether a server has started."""
    try:
        asyncio.run(load(port, message, 1, 1))
    except (OSError, AssertionError, asyncio.IncompleteReadError):
        return False
    return True


def cpu_ms(root: int) -> Counter[str]:
    """CPU time of a process and all its descendants that are alive, by what they are."""
    spent: Counter[str] = Counter()
    for process, title in {psutil.Process(root): "", **titles(root)}.items():
        with contextlib.suppress(psutil.Error):  # it has just ended
            times = process.cpu_times()
            command = title or " ".join(process.cmdline())
            spent[next((part for text, part in PARTS.items() if text in command), "others")] += (
                times.user + times.system
            )
    return Counter({part: 1000 * seconds for part, seconds in spent.items()})


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as store, contextlib.ExitStack() as running:
        for workload in WORKLOADS:
            put(open_store(store), workload.name, width=workload.width)
        ports = [free_port() for _ in range(3)]
        names = [workload.name for workload in WORKLOADS]
        commands = {
            "FastAPI": [sys.executable, "-m", "tests.benchmarks._plain_server", store, str(ports[0]), *names],
            "HAProxy": _serve(store, "haproxy", ports[1]),
            "Serve's proxy": _serve(store, "serve", ports[2]),
        }
        servers = []
        for (name, command), port in zip(commands.items(), ports, strict=True):
            process = running.enter_context(started(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
            servers.append(server := Server(name, process, port))
            server.warm_up()
        for server in servers:
            server.rest()
            print(f"{server.name} idle: {sum(server.idle.values()):.0f} CPU-ms a second ({_listed(server.idle, 0.5)})")
        for workload in WORKLOADS:
            _table(workload.name, _compare(servers, workload, store))
        for server in servers:
            server.process.terminate()
            server.process.wait(PATIENCE_SECONDS)


def _serve(store: str, proxy: str, port: int) -> list[str]:
    config = Path(store, f"{proxy}.yaml")
    config.write_text(f"proxy: {proxy}\n")
    ports = ["--port", str(port), "--metrics-port", str(free_port())]
    return [sys.executable, "-m", "service", "serve", "--store", store, "--config", str(config), *ports]


def _compare(servers: Sequence[Server], workload: Workload, store: str) -> Results:
    opened = open_store(store)
    network = models.load(opened, models.find(opened, workload.name))
    together = workload.alone(network, TOGETHER)
    print(f"{workload.name} model alone: {together:.2f} CPU-ms a request where {TOGETHER} are together")
    results: Results = {}
    for clients in CLIENTS:
        alone: list[float] = []
        measured = {server.name: Measured(alone) for server in servers}
        for _ in range(ROUNDS):
            alone.append(workload.alone(network, pause=ONE_WAITS if clients == 1 else 0.0))
            for server in servers:
                server.measure(workload.request, clients, measured[server.name])
        results[clients] = measured
        print(f"{clients:3} client(s), model alone    {median(alone):.2f} CPU-ms")
        (baseline, *_) = measured.values()
        for name, here in measured.items():
            print(
                f"{clients:3} client(s), {name:13}  p50 {here.p50:6.1f} ms ({here.p50 / baseline.p50:.2f} of FastAPI's)"
                f"  p99 {here.p99:6.1f} ms ({here.p99 / baseline.p99:.2f})  {here.rate:4.0f} requests/s "
                f"({here.rate / baseline.rate:.2f})  {here.cpu_ms:5.2f} CPU-ms: {here.beyond:+.2f} to the model alone "
                f"({_listed(here.cpu_each, 0.02)})  {here.refused} told to come back",
                flush=True,
            )
    return results


def _listed(spent: Mapping[str, float], least: float) -> str:
    """ms by process, of those with so much."""
    return ", ".join(f"{part} {each:.2f}" for part, each in spent.items() if abs(each) >= least)


def _table(name: str, results: Results) -> None:
    """The goals are for HAProxy, which is in front by default."""
    print(f"\n{name} model           CPU-ms beyond the model            p50 in parts of FastAPI's     requests/s")
    print("clients    FastAPI  Serve's  HAProxy        goal     Serve's  HAProxy        goal     HAProxy        goal")
    best = max(measured["HAProxy"].rate for measured in results.values())
    for clients, measured in results.items():
        plain, ours, serves = (measured[server] for server in ("FastAPI", "HAProxy", "Serve's proxy"))
        median_ratio = ours.p50 / plain.p50
        cells = [f"{plain.beyond:10.2f} {serves.beyond:8.2f} {ours.beyond:8.2f}"]
        cells.append(_goal(f"<= {MOST_CPU_MS}", ours.beyond <= MOST_CPU_MS))
        cells.append(f"{serves.p50 / plain.p50:8.2f} {median_ratio:8.2f}")
        cells.append(_goal("< 1", median_ratio < 1) if clients >= SHARED_FROM else " " * 11)
        cells.append(f"{ours.rate:8.0f}")
        cells.append(
            _goal(f">= {LEAST_RATE * best:.0f}", ours.rate >= LEAST_RATE * best) if clients == CLIENTS[-1] else ""
        )
        print(f"{clients:7} {' '.join(cells)}", flush=True)
    print(flush=True)


def _goal(text: str, met: bool) -> str:
    return f"{text:>6} {'met' if met else 'NOT':4}"


if __name__ == "__main__":
    main()
