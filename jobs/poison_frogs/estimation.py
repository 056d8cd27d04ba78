"""What a search costs, before anything is computed: crafts, retrainings, floating point operations, seconds here.

A multiply-add counts as two operations. A step of crafting is a forward pass and a backward pass to the image, twice
the forward pass; a training step is three times. Upper bounds: a craft may stop before its last step.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from jobs.common.data.images import DataParams
from jobs.common.estimation import layer_work, least_seconds, size_of
from jobs.common.imports import resolve
from jobs.common.models.classifier_params import ClassifierParams
from jobs.common.models.network_params import PublishedNetwork
from jobs.common.models.reference import ModelReference
from jobs.poison_frogs.features import Features
from jobs.poison_frogs.poisons.recipes import Matching, Polytope, Recipe
from jobs.poison_frogs.poisons.search import batches
from jobs.poison_frogs.targets.setups import Setup
from jobs.poison_frogs.victims.heads import HeadParams, fit_head
from jobs.poison_frogs.victims.networks import ScratchParams, VictimParams

EVALUATIONS = 200  # of L-BFGS for a head, as measured on digits


def estimate(
    data: DataParams,
    network: ClassifierParams | ModelReference | PublishedNetwork,
    classes: Sequence[str],
    pairs: Sequence[tuple[str, int | None]],
    setups: Sequence[Setup],
    size: int,
    poisons: Sequence[int],
    attack: Recipe | Polytope | Matching,
    tries: int,
    batch: int,
    victims: Mapping[str, VictimParams],
    repeats: int,
    epochs: int,
) -> dict[str, Any]:
    """Names and values for people.

    classes: that victims learn; none: all. pairs: the target class of each, and how many targets; none: all of them.
    setups: of a benchmark, instead of pairs and poisons. size: images that a victim of these learns from. tries: bases
    for a poison. batch: pairs that are crafted at once, at most. repeats: of each victim, behind each defence and
    behind none. epochs: of the network's own training. A network of the store is not opened: then operations are not
    told.
    """
    there = size_of(data)
    shape, train, test, all_classes, per_class = there.shape, there.train, there.test, there.classes, there.of_class
    targets = len(setups)
    if setups:
        poisons = (len(setups[0].base_indices),)
    for name, count in pairs:
        if count is None and name not in per_class:
            return {"crafts": f"unknown: {data.name} is not there, and the number of targets is not said"}
        targets += count if count is not None else per_class[name]
    # what is made together is made for each number
    if isinstance(attack, Recipe):
        crafts = sum(map(len, batches(targets, poisons[-1], batch)))
    else:
        crafts = targets * sum(poisons)
    # of each target; without poison one does for all, if they are not replaced
    runs = repeats * (targets * (len(poisons) + 1) + (len(setups) or 1))
    told: dict[str, Any] = {
        "targets, at most": targets,
        "crafts, at most": crafts,
        "retrainings, at most": len(victims) * runs,
    }
    if tries > 1:
        told["retries"] = f"of poisons that do not come near enough, up to {tries - 1} each: not counted"
    net = _built(network, all_classes, shape[0])
    if net is None:
        return told
    image = torch.rand(1, *shape)
    macs, rate = count_macs(net, image), operations_per_second(net, image)
    learnt = size or (train * len(classes) // all_classes if classes else train)
    retraining, seconds = 0.0, 0.0
    for victim in victims.values():
        if isinstance(victim, HeadParams):
            size, outputs = Features(net, image).size, len(classes) or all_classes
            rows, steps = (learnt, EVALUATIONS) if victim.solver == "lbfgs" else (victim.batch, victim.steps)
            retraining += runs * 6.0 * size * outputs * rows * steps
            seconds += runs * steps * seconds_of_step(size, outputs, rows)
        else:
            other = victim.classifier if isinstance(victim, ScratchParams) else None
            own = macs if other is None else count_macs(other.build_for(all_classes, shape[0], 0), image)
            spent = runs * 2.0 * own * (3 * victim.epochs * (learnt + poisons[-1]) + test)
            retraining, seconds = retraining + spent, seconds + spent / rate
    told["FLOPs of features"] = 2.0 * macs * (learnt + test)
    told["FLOPs of crafting, at most"] = macs * _passes(attack) * crafts
    told["FLOPs of retraining, at most"] = retraining
    if epochs:
        told["FLOPs of training"] = 6.0 * macs * epochs * train
    others = sum(value for name, value in told.items() if name.startswith("FLOPs")) - retraining
    cores = os.cpu_count() or 1
    told["GFLOP/s on a core here, crafting"] = rate / 1e9
    told["seconds here, at most"] = (others / rate + seconds) / cores
    return told


def _passes(attack: Recipe | Polytope | Matching) -> float:
    """Operations on one image for each multiply-add of a forward pass. Matching differentiates twice."""
    if isinstance(attack, Recipe):
        return 4.0 * attack.iterations
    if isinstance(attack, Polytope):
        return 4.0 * attack.steps * attack.draws
    return 12.0 * attack.steps * attack.restarts


def count_macs(network: nn.Module, image: Tensor) -> int:
    """Multiply-adds of all convolutions and linear layers on one image (1, channels, height, width)."""
    return sum(layer.macs for layer in layer_work(network, image))


def operations_per_second(network: nn.Module, image: Tensor) -> float:
    """Of crafting, measured on one core with a made-up batch that takes well under a second."""
    macs = count_macs(network, image)
    images = torch.rand(max(1, min(32, int(3e8 / macs))), *image.shape[1:])
    network.eval().requires_grad_(False)

    def step() -> None:
        leaf = images.clone().requires_grad_()
        torch.autograd.grad(network(leaf).sum(), leaf)

    return 4.0 * macs * len(images) / least_seconds(step, 3)


def seconds_of_step(size: int, classes: int, rows: int) -> float:
    """One step of a head on one core, which takes longer than its operations would."""
    features, labels = torch.rand(rows, size), torch.arange(rows) % classes
    params = HeadParams(solver="adam", steps=10, batch=rows)
    return least_seconds(lambda: fit_head(features, labels, classes, params, 0), 3) / params.steps


def _built(
    network: ClassifierParams | ModelReference | PublishedNetwork, classes: int, channels: int
) -> nn.Module | None:
    if isinstance(network, ClassifierParams):
        return network.build_for(classes, channels, 0)
    if isinstance(network, PublishedNetwork):  # its weights, which may have to be fetched, do not change the count
        return network.untrained()
    if ":" not in network.name:
        return None
    build: Callable[..., object] = resolve(network.name, {}, "model")
    built = build(**network.options)
    return built.eval() if isinstance(built, nn.Module) else None
