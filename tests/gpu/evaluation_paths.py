"""Attacks, surfaces, poisons, endpoints, rays and patches beside their bounds.

Where the released code works on one thing at a time, so does the plain way.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from jobs.common.attacks import Attack, Ball
from jobs.common.attacks.prepared import prepared
from jobs.common.data.boxes.scenes import scenes
from jobs.common.detection.base import frozen
from jobs.common.detection.detectors import TRAINABLE
from jobs.common.mean_loss.losses import LOSSES
from jobs.common.models.directions import random_direction
from jobs.common.models.weights import tensors
from jobs.generalization.basins.stacked_loss import StackedLoss
from jobs.invisibility_cloak.patch.rendering_params import RenderingParams
from jobs.invisibility_cloak.patch.search import Problem, State, random_patch, searched
from jobs.invisibility_cloak.patch.search_params import SearchParams
from jobs.loss_landscape.surface.evaluator import Evaluator, EvaluatorParams
from jobs.poison_frogs.features import Features
from jobs.poison_frogs.poisons.collision import craft
from jobs.poison_frogs.poisons.recipes import FeatureCollision
from service.execution.devices import reservation
from tests.benchmarks._plain_landscape import plain_way as plain_landscape
from tests.gpu.bounds import Alone
from tests.gpu.hot_path import HotPath, network_of
from tests.gpu.machine import Machine


def landscape(machine: Machine, name: str, options: dict[str, object]) -> HotPath:
    count = 32 if machine.dry else 8192
    network = network_of(machine, name, options).eval().requires_grad_(False)
    images, labels = torch.rand(count, 3, 32, 32, device=machine.device), torch.zeros(count, dtype=torch.int64)
    labels = labels.to(machine.device)
    weights = tensors(network, "weights")
    axes = [
        {
            key: each.to(machine.device)
            for key, each in random_direction(
                {key: tensor.cpu() for key, tensor in weights.items()},
                "filter",
                "biasbn",
                torch.Generator().manual_seed(seed),
            ).items()
        }
        for seed in (0, 1)
    ]
    with reservation(machine.gpus):
        evaluator = Evaluator(network, axes, images, labels, EvaluatorParams())
    precision = "float32" if machine.dry else "bfloat16"
    bound = Alone(network, images[: evaluator.batches.size], machine.half, "none")
    plain_network = network_of(machine, name, options).eval().requires_grad_(False)
    few = min(count, 1024)
    return HotPath(
        count,
        lambda: evaluator.at((0.1, 0.2), precision),  # type: ignore[arg-type]
        bound,
        min(count, evaluator.batches.size),
        lambda: plain_landscape(plain_network, axes, images[:few], labels[:few]),
        few,
        0.8,
    )


def attacked(machine: Machine, name: str, attack: Attack, network_name: str, options: dict[str, object]) -> HotPath:
    """In float32, on images that no attack turns: a radius of nearly nothing."""
    count, classes = (4, 2) if machine.dry else (512, 10)  # AutoAttack aims at each of the other classes
    network = network_of(machine, network_name, options, classes).eval().requires_grad_(False)
    images = torch.rand(count, 3, 32, 32, device=machine.device)
    with torch.no_grad():
        labels = network(images).argmax(1)
    ball = Ball("Linf", 1e-7)
    forward, backward = attack.cost("Linf", classes, False)
    bound = Alone(network, images, torch.float32, "inputs" if backward else "none")
    passes = max(backward, 1) if backward else forward  # what a pass without a gradient adds is left out: it is less

    def plain() -> None:
        points = images.clone()
        for _ in range(backward or forward):
            points.requires_grad_(bool(backward))
            loss = functional.cross_entropy(network(points), labels)
            if backward:
                (gradient,) = torch.autograd.grad(loss, points)
                points = (points.detach() + 1e-8 * gradient.sign()).clamp(0, 1)
            loss.item()

    return HotPath(
        count * passes,
        lambda: attack.run(network, images, labels, ball),
        bound,
        count,
        plain,
        count * passes,
        0.8,
    )


def poisons(machine: Machine, name: str, options: dict[str, object]) -> HotPath:
    pairs, steps = (3, 2) if machine.dry else (256, 50)
    network = network_of(machine, name, options).eval().requires_grad_(False)
    bases, targets = (torch.rand(pairs, 3, 32, 32, device=machine.device) for _ in range(2))
    features = Features(network, bases[:1])
    wanted = features(targets).detach()
    recipe = FeatureCollision(iterations=steps, step=1e-6, stop_change=0.0, quantise="none")
    bound = Alone(network, bases, torch.float32, "inputs")
    return HotPath(
        pairs * steps,
        lambda: craft(features, bases, targets, wanted, recipe),
        bound,
        pairs,
        lambda: craft(features, bases[:1], targets[:1], wanted[:1], recipe),
        steps,
        0.8,
    )


def answered(machine: Machine, network: nn.Module, side: int) -> HotPath:
    """What an endpoint computes for a batch of requests, against one request after another on the network as it is."""
    count = 2 if machine.dry else 64
    network = network.to(machine.device).eval().requires_grad_(False)
    images = torch.rand(count, 3, side, side, device=machine.device)
    ready = prepared(network, images[:2])
    bound = Alone(network, images, torch.float32, "none")

    def asked(model: Callable[[Tensor], Tensor], given: Tensor) -> Tensor:
        with torch.no_grad():
            return model(given).argmax(1).cpu()

    return HotPath(count, lambda: asked(ready, images), bound, count, lambda: asked(network, images[:1]), 1, 0.8)


def rays(machine: Machine) -> HotPath:
    """Losses along rays, of the network of the paper on the points of the swiss roll."""
    hidden, points, count = ([8, 8], 20, 4) if machine.dry else ([23] * 7, 200, 512)
    layers = [nn.Linear(a, b) for a, b in zip([2, *hidden], [*hidden, 2], strict=True)]
    network = nn.Sequential(*[part for layer in layers[:-1] for part in (layer, nn.ReLU())], layers[-1])
    network = network.to(machine.device).eval().requires_grad_(False)
    inputs, labels = torch.randn(points, 2, device=machine.device), torch.arange(points, device=machine.device) % 2
    loss = StackedLoss(network, inputs, labels, LOSSES["cross_entropy"])
    directions = torch.randn(count, loss.layout.size, device=machine.device)
    numbers, distances = torch.arange(count, device=machine.device), torch.ones(count, device=machine.device).double()
    weights = [torch.randn(count, layer.in_features, layer.out_features, device=machine.device) for layer in layers]
    begun = [torch.randn(count, points, layer.in_features, device=machine.device) for layer in layers]

    def products() -> None:
        for each, given in zip(weights, begun, strict=True):
            torch.bmm(given, each)

    def plain() -> None:
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.copy_(parameter + 0.0)
            functional.cross_entropy(network(inputs), labels).item()

    return HotPath(
        count,
        lambda: loss.along(loss.centre[None], directions, numbers, distances),
        products,
        count,
        plain,
        1,
        0.8,
    )


def patch(machine: Machine) -> HotPath:
    side, batch, steps = (48, 2, 2) if machine.dry else (96, 64, 25)
    torch.manual_seed(0)
    detector = TRAINABLE["one_anchor"](classes=("person",), side=side)
    data = scenes("train", side, 2 * batch)
    task = Problem({"one": detector}, data, torch.arange(len(data)), "person", RenderingParams(median=1))
    params = SearchParams(size=(50, 30), iterations=1000, batch=batch)
    begun = State.begin(random_patch((50, 30), 0), 1)
    examples = torch.rand(batch, 3, side, side, device=machine.device)
    network = frozen(detector).to(machine.device)
    bound = Alone(network.network, examples, torch.float32, "inputs")
    alone = SearchParams(size=(50, 30), iterations=1000, batch=1)
    return HotPath(
        batch * steps,
        lambda: searched(begun, task, params, 0, steps, machine.device),
        bound,
        batch,
        lambda: searched(begun, task, alone, 0, steps, machine.device),
        steps,
        0.6,
    )
