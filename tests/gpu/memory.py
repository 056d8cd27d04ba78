"""Memory of the GPU: the largest batch, no growth over many steps, and two trials that share one."""

import copy
import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional

from jobs.common.attacks import PGD, Ball
from jobs.common.batch_size import largest_batch
from jobs.common.models.classifiers import classifier
from service import spec
from service.execution import runner
from service.execution.runner import Execution
from service.store import open_store
from tests.gpu.machine import Machine
from tests.gpu.studies import CONFIGS
from tests.gpu.training_paths import by_hand


@dataclass(frozen=True)
class Finding:
    """What was looked at, and what came out."""

    name: str
    value: str
    passed: bool
    problem: str = ""


def largest(machine: Machine) -> Finding:
    """Images of 32x32 in a pass forward and back of the network of the paper on free training."""
    name = "largest batch of WRN-32-10, forward and back in float32"
    if machine.dry:
        return Finding(name, "not looked for without a GPU", True)
    network = classifier("wide_resnet", classes=10, channels=3, depth=32, width=10).to(machine.device)

    def attempt(size: int) -> None:
        network.zero_grad()
        images = torch.rand(size, 3, 32, 32, device=machine.device)
        functional.cross_entropy(
            network(images), torch.zeros(size, dtype=torch.int64, device=machine.device)
        ).backward()

    batch = largest_batch(attempt, 1 << 14, machine.device)
    return Finding(name, f"{batch:,} images in 0.4 of the memory", batch >= 64)


def growth(machine: Machine) -> list[Finding]:
    """Whether more is held after many steps than after a few."""
    steps = 20 if machine.dry else 1000
    network = classifier("cifar_resnet", classes=10, channels=3, blocks=[1], first=8).to(machine.device)
    images, labels = torch.rand(8, 3, 32, 32), torch.arange(8) % 10
    update = by_hand(network, [(images, labels)], 1)
    attacked = copy.deepcopy(network).eval().requires_grad_(False)
    given = images.to(machine.device)
    with torch.no_grad():
        classes = attacked(given).argmax(1)

    def attack() -> None:
        PGD(steps=2).run(attacked, given, classes, Ball("Linf", 1e-7))

    findings = []
    for name, act in (("training", update), ("PGD", attack)):
        held = [_held(act, count, machine) for count in (steps // 10, steps)]
        grown = held[1] - held[0]
        unit = "tensors" if machine.dry else "bytes"
        findings.append(Finding(f"growth over {steps:,} steps of {name}", f"{grown:,} {unit}", grown <= 0))
    return findings


def _held(act: Callable[[], object], steps: int, machine: Machine) -> int:
    """Bytes on the GPU after so many steps; in a dry run tensors that are alive."""
    for _ in range(steps):
        act()
    machine.wait()
    gc.collect()
    if machine.dry:
        return sum(issubclass(type(each), torch.Tensor) for each in gc.get_objects())
    return torch.cuda.memory_allocated(machine.device)


def shared(machine: Machine, folder: Path) -> Finding:
    """Two trials of a sweep, each with half a GPU, at the same time under Ray, against one after the other."""
    name = "two trials with gpus: 0.5 share one GPU"
    short = [
        *("params.training.updates=60", "params.training.report_every=30", "params.data.test_limit=50"),
        "params.evaluation.attacks={pgd: {kind: pgd, steps: 5}}",
        "sweep.variants={natural: {params.method: {kind: natural}}, free_4: {params.method: {kind: free, replay: 4}}}",
        f"resources={{cpus: 1, gpus: {0 if machine.dry else 0.5}}}",
    ]
    tables = []
    began = time.perf_counter()
    for serial in (False, True):
        store = folder / ("serial" if serial else "ray")
        loaded = spec.load(str(CONFIGS / "free_training/digits_small.yaml"), [*short, f"store={store}"])
        state = runner.start(loaded, Execution(serial=serial, cpus=2))
        if state.status != "finished":
            return Finding(name, state.status, False, str(state.failure))
        rows = (open_store(str(store)) / "runs" / state.id).read_table("tables/results.parquet").to_pylist()
        tables.append([{key: each for key, each in row.items() if "second" not in key} for row in rows])
    same = repr(tables[0]) == repr(tables[1])
    seconds = time.perf_counter() - began
    return Finding(name, f"{'the same results' if same else 'other results'} as in turn, {seconds:.0f} s", same)


def all_findings(machine: Machine, folder: Path, serial: bool) -> list[Finding]:
    """serial: without Ray, so that nothing is shared."""
    asked: list[tuple[str, Callable[[], list[Finding]]]] = [
        ("largest batch", lambda: [largest(machine)]),
        ("growth", lambda: growth(machine)),
    ]
    if not serial:
        asked.append(("sharing", lambda: [shared(machine, folder)]))
    findings = []
    for name, look in asked:
        try:
            findings += look()
        except Exception as error:
            findings.append(Finding(name, "", False, f"{type(error).__name__}: {error}"))
    for each in findings:
        print(each, flush=True)
    return findings
