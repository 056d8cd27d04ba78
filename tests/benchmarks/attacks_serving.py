"""What attacks cost those who only want to infer: latency while attacks run, as a ratio to that of an idle server.

`assay serve` with a ResNet-20. Inference asks for one image of 32x32 at a time; attacks are PGD with 20 steps on 16
images, two clients that ask for one after another. Idle and attacked rounds take turns, so that what else the machine
does falls on both.
"""

import asyncio
import contextlib
import json
import subprocess
import tempfile
from collections.abc import Sequence
from statistics import median, quantiles
from typing import Any

import httpx
import torch

from jobs.common.models.classifiers import classifier
from service.models import CardDraft, TensorSpec, publish
from service.store import open_store
from tests.benchmarks.serving import _serve, answers, client, load
from tests.ports import free_port
from tests.processes import PATIENCE_SECONDS, started, wait_for

MODEL, CLASSES = "bench", 10
ROUNDS, REQUESTS, ATTACKERS = 3, 240, 2


def message(action: str, rows: int, **parameters: Any) -> bytes:
    images = torch.rand(rows, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    tensor = {"name": "images", "datatype": "FP32", "shape": list(images.shape), "data": images.flatten().tolist()}
    outputs = [{"name": "prediction"}]
    body = json.dumps({"inputs": [tensor], "parameters": parameters, "outputs": outputs}).encode()
    path = f"/v2/models/{MODEL}/{action}"
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return f"{head}\r\n\r\n".encode() + body


INFER = message("infer", 1)
ATTACK = message("attack", 16, epsilon=1e-6, steps=20)  # so small that no image leaves the attack early


async def attacked(port: int, clients: int) -> list[float]:
    """Latencies in ms of inference while others attack. They leave at the end, and with them their attacks."""
    attackers = [asyncio.create_task(client(port, ATTACK, 10**9)) for _ in range(ATTACKERS)]
    await asyncio.sleep(1)
    latencies, _ = await load(port, INFER, clients, REQUESTS)
    for attacker in attackers:
        assert not attacker.done(), "an attack was refused"
        attacker.cancel()
    for attacker in attackers:
        with contextlib.suppress(asyncio.CancelledError):
            await attacker
    await asyncio.sleep(1)
    return latencies


def rounds(port: int, clients: int) -> tuple[list[float], list[float]]:
    """Latencies of an idle and of an attacked server."""
    idle: list[float] = []
    busy: list[float] = []
    for _ in range(ROUNDS):
        idle += asyncio.run(load(port, INFER, clients, REQUESTS))[0]
        busy += asyncio.run(attacked(port, clients))
    return idle, busy


def report(name: str, idle: Sequence[float], busy: Sequence[float]) -> None:
    (p50, p99), (busy_p50, busy_p99) = ((median(each), quantiles(each, n=100)[98]) for each in (idle, busy))
    print(f"{name:38} idle                p50 {p50:6.1f} ms         p99 {p99:6.1f} ms")
    print(
        f"{'':38} while attacks run   p50 {busy_p50:6.1f} ms ({busy_p50 / p50:.2f})  "
        f"p99 {busy_p99:6.1f} ms ({busy_p99 / p99:.2f})"
    )


def main() -> None:
    with tempfile.TemporaryDirectory() as store:
        _publish(store)
        for name, proxy in (("assay serve", "haproxy"), ("assay serve, Serve's proxy", "serve")):
            port = free_port()
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            with started(_serve(store, proxy, port), **quiet) as server:
                wait_for(lambda port=port: answers(port, INFER) and answers(port, ATTACK), server)
                for clients in (1, 16):
                    report(f"{name}: clients: {clients}", *rounds(port, clients))
                spent = httpx.get(f"http://127.0.0.1:{port}/v2/models/{MODEL}/stats").json()["model_stats"][0]
                print(f"{'':38} {spent['attack_stats']['gradients']:,} gradients went into attacks that were finished")
                server.terminate()
                server.wait(PATIENCE_SECONDS)


def _publish(store: str) -> None:
    draft = CardDraft(
        architecture="jobs.common.models.classifiers:resnet20",
        arguments={"classes": CLASSES},
        study="free_training",
        task="classification",
        inputs=(TensorSpec(name="images", datatype="FP32", shape=(-1, 3, 32, 32)),),
        outputs=(TensorSpec(name="logits", datatype="FP32", shape=(-1, CLASSES)),),
        settings={"classes": [str(number) for number in range(CLASSES)]},
        metrics={},
        description="random weights",
    )
    publish(open_store(store), MODEL, classifier("resnet20", classes=CLASSES).eval().state_dict(), draft)


if __name__ == "__main__":
    main()
