"""How fast a loss surface is computed, on one core: images per second of ResNet-20 at points of a plane.

In turn, so that ratios hold on a loaded machine: the plain way of the released code of Li et al. 2018 (float32, batch
norm as it is, batches of 128 from a data loader), the packages loss-landscapes and landscaper (if they are installed),
the evaluator in float32 and in bfloat16, and the bound: its convolutions alone, with nothing between them. Then a grid
on one worker and on two.
"""

import copy
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from importlib.util import find_spec
from io import StringIO
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from jobs.common.mean_loss.samples import Samples
from jobs.common.models.classifiers import classifier
from jobs.common.models.directions import random_direction
from jobs.common.models.weights import Direction, tensors
from jobs.loss_landscape.surface.computation import Subject, compute_surface
from jobs.loss_landscape.surface.evaluator import PIXELS, Evaluator, EvaluatorParams
from jobs.loss_landscape.surface.grid import AxisParams, GridParams
from service.cluster.connection import connect
from service.cluster.tasks import RayTasks
from service.run import Run
from service.spec import Resources
from service.store import open_store
from tests.benchmarks._plain_landscape import plain_way

IMAGES = 1024
ROUNDS = 5
POINTS = 4  # of a packaged surface: 2x2
GRID = 16  # points along a side for one and for two workers: they take half a minute, starting takes one second


def loss_landscapes(network: nn.Module, images: Tensor, labels: Tensor) -> None:
    """POINTS points by the package."""
    import loss_landscapes as package
    from loss_landscapes.metrics import Loss

    with torch.no_grad():
        package.random_plane(network, Loss(functional.cross_entropy, images, labels), steps=2, deepcopy_model=True)


def landscaper(network: nn.Module, axes: list[Direction], images: Tensor, labels: Tensor) -> None:
    """POINTS points by the package."""
    from landscaper.compute import compute_loss_landscape

    def loss(model: nn.Module, data: tuple[Tensor, Tensor]) -> Tensor:
        return functional.cross_entropy(model(data[0]), data[1])

    names = [name for name, _ in network.named_parameters()]
    directions = [[axis[name] for name in names] for axis in axes]
    with torch.no_grad(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        compute_loss_landscape(network, (images, labels), directions, loss, steps=2, distance=1.0, dim=2, device="cpu")


def convolutions_alone(network: nn.Module, images: Tensor, batch: int) -> Callable[[], None]:
    """Every convolution of a pass over all the images, in bfloat16 and channels last, with nothing in between."""
    calls: list[tuple[nn.Module, Tensor]] = []
    network = copy.deepcopy(network).to(torch.bfloat16, memory_format=torch.channels_last)
    layers = [each for each in network.modules() if isinstance(each, nn.Conv2d)]
    for layer in layers:
        layer.bias = nn.Parameter(torch.zeros(layer.out_channels, dtype=torch.bfloat16))  # as after folding
    hooks = [
        layer.register_forward_pre_hook(lambda layer, inputs: calls.append((layer, inputs[0]))) for layer in layers
    ]
    with torch.no_grad():
        network(images[:batch].to(torch.bfloat16))
    for hook in hooks:
        hook.remove()

    def run() -> None:
        with torch.no_grad():
            for _ in range(0, len(images), batch):
                for layer, inputs in calls:
                    layer(inputs)

    return run


def rates(ways: dict[str, tuple[Callable[[], object], int]]) -> dict[str, float]:
    """Images per second of processor time, the best of ROUNDS, the ways in turn. ways: what to call, points it does."""
    best = dict.fromkeys(ways, float("inf"))
    for act, _ in ways.values():
        act()
    for _ in range(ROUNDS):
        for name, (act, points) in ways.items():
            began = time.process_time()
            act()
            best[name] = min(best[name], (time.process_time() - began) / points)
    return {name: IMAGES / seconds for name, seconds in best.items()}


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = classifier("resnet20", classes=10, channels=3).eval()
    for parameter in network.parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter, 1.0, 0.1)  # loss-landscapes divides by the norms of these
    images, labels = torch.rand(IMAGES, 3, 32, 32), torch.randint(0, 10, (IMAGES,))
    weights = tensors(network, "weights")
    axes = [random_direction(weights, "filter", "biasbn", torch.Generator().manual_seed(seed)) for seed in (0, 1)]
    seen = images.contiguous(memory_format=torch.channels_last)
    evaluator = Evaluator(network, axes, seen, labels, EvaluatorParams())
    plain, packaged = copy.deepcopy(network), copy.deepcopy(network)
    bound = convolutions_alone(network, seen, min(evaluator.batches.size, PIXELS // 1024))
    ways: dict[str, tuple[Callable[[], object], int]] = {
        "(a) the plain way": (lambda: plain_way(plain, axes, images, labels), 1),
        "float32": (lambda: evaluator.at((0.1, 0.2)), 1),
        "bfloat16": (lambda: evaluator.at((0.1, 0.2), "bfloat16"), 1),
        "(c) convolutions alone, bfloat16": (bound, 1),
    }
    peers: dict[str, Callable[[], object]] = {
        "loss_landscapes": lambda: loss_landscapes(packaged, images, labels),
        "landscaper": lambda: landscaper(packaged, axes, images, labels),
    }
    for name, act in peers.items():
        if find_spec(name) is None:
            print(f"(b) {name}: not installed")
        else:
            ways[f"(b) {name}"] = act, POINTS
    found = rates(ways)
    plainly, most = found["(a) the plain way"], found["(c) convolutions alone, bfloat16"]
    for name, rate in found.items():
        print(f"{name}: {rate:,.0f} images/s, {rate / plainly:.2f} of (a), {rate / most:.2f} of (c)")
    print(f"policy: {'; '.join(evaluator.policy)}; batches of {evaluator.batches.size}")
    two_workers(network, axes, seen, labels)


def two_workers(network: nn.Module, axes: list[Direction], images: Tensor, labels: Tensor) -> None:
    """The same grid on one worker and on two, by the clock."""
    subject = Subject(network, axes, Samples(images, labels), len(images), EvaluatorParams(precision="bfloat16"))
    side = AxisParams(steps=GRID)
    took: dict[int, float] = {}
    surfaces: list[Any] = []
    for workers in (1, 2):
        with connect("local", cpus=workers), tempfile.TemporaryDirectory() as folder:
            executor = RayTasks(Resources(), 0, lambda progress: None)
            run = Run(open_store(folder) / "warm", 0, executor=executor)
            compute_surface(subject, GridParams(x=AxisParams(steps=2 * workers)), None, run)
            run = Run(open_store(folder) / "timed", 0, executor=executor)
            began = time.perf_counter()
            surfaces.append(compute_surface(subject, GridParams(x=side, y=side), None, run).loss)
            took[workers] = time.perf_counter() - began
    assert np.array_equal(*surfaces)
    print(f"{GRID}x{GRID} points: {took[1]:.1f} s on one worker, {took[2]:.1f} s on two, {took[1] / took[2]:.2f} times")


if __name__ == "__main__":
    main()
