"""What a search costs, before anything is computed: crafts, retrainings, multiply-adds, seconds here.

A step of crafting is a forward pass and a backward pass to the image, twice the forward pass; a training step is three
times. Upper bounds: a craft may stop before its last step, and not every target may fit.
"""

from dataclasses import dataclass

import torch

from jobs.common.estimation import (
    TRAINING,
    Architecture,
    SetSize,
    Shape,
    least_seconds,
    measured_once,
    multiply_adds,
    multiply_adds_of,
    size_of,
    training_seconds_of,
    untrained,
)
from jobs.common.models.network_params import PublishedNetwork, TrainedNetwork
from jobs.poison_frogs.features import Features
from jobs.poison_frogs.params import Params
from jobs.poison_frogs.poisons.recipes import FeatureCollision, Matching, Polytope
from jobs.poison_frogs.poisons.search import batches
from jobs.poison_frogs.victims.heads import HeadParams, fit_head
from jobs.poison_frogs.victims.networks import ScratchParams
from service.errors import InputError
from service.run import Estimate

EVALUATIONS = 200  # of L-BFGS for a head, as measured on digits


@dataclass(frozen=True)
class Counts:
    """How much there is to do, at most."""

    targets: int
    poisons: tuple[int, ...]
    """for a target"""
    crafts: int
    retrainings: int
    """of each kind of victim"""
    learnt: int
    """clean images that a victim learns from"""


def estimate(params: Params) -> Estimate:
    """Training, features, crafting and retraining. A network of the store is not opened: then they are only counted."""
    try:
        size = size_of(params.data)
        counts = _counts(params, size)
    except InputError as error:
        return Estimate(details={"crafts": f"unknown: {error.message}"})
    details: dict[str, float | str] = {
        "targets, at most": counts.targets,
        "crafts, at most": counts.crafts,
        "retrainings, at most": len(params.victims) * counts.retrainings,
    }
    if params.retry is not None:
        details["retries"] = f"of poisons that do not come near enough, up to {params.retry.tries - 1}: not counted"
    pieces = max(1, len(params.victims) * counts.retrainings)
    architecture = _architecture(params)
    if architecture is None:
        return Estimate(pieces=pieces, details=details)

    network = architecture, size.classes, size.shape
    forward, rate = multiply_adds_of(*network), multiply_adds_per_second(*network)
    crafting = forward * _passes(params.attack) * counts.crafts * (params.surrogates + (not params.grey_box))
    details["multiply-adds of crafting, at most"] = crafting
    macs = crafting + forward * (counts.learnt + size.test)
    seconds = macs / rate
    victim_macs, victim_seconds = _retraining(params, size, counts, architecture)
    details["multiply-adds of retraining, at most"] = victim_macs
    macs, seconds = macs + victim_macs, seconds + victim_seconds
    if isinstance(params.network, TrainedNetwork):
        images = params.network.training.epochs * (1 + params.surrogates) * size.train
        macs += TRAINING * forward * images
        seconds += training_seconds_of(*network) * images
    return Estimate(core_seconds=seconds, multiply_adds=macs, pieces=pieces, details=details)


def _counts(params: Params, size: SetSize) -> Counts:
    """InputError if nobody knows how many targets there are."""
    setups = () if params.setups is None else params.setups.load()
    poisons = (len(setups[0].base_indices),) if setups else params.poisons
    targets = len(setups)
    for pair in params.pairs:
        count = pair.targets or params.targets.count or size.of_class.get(pair.target)
        if params.targets.indices:
            count = len(params.targets.indices)
        if count is None:
            raise InputError(f"{params.data.name} is not there, and the number of targets is not given")
        targets += count
    if isinstance(params.attack, FeatureCollision):
        crafts = sum(map(len, batches(targets, poisons[-1], params.batch)))
    else:  # what is made together is made for each number
        crafts = targets * sum(poisons)
    # of each target; without poison one does for all, if they are not replaced
    runs = targets * (len(poisons) + 1) + (len(setups) or 1)
    learnt = size.train * len(params.task) // size.classes if params.task else size.train
    return Counts(
        targets=targets,
        poisons=poisons,
        crafts=crafts,
        retrainings=(1 + len(params.defences)) * params.repeats * runs,
        learnt=learnt if params.setups is None else params.setups.images,
    )


def _retraining(params: Params, size: SetSize, counts: Counts, attacked: Architecture) -> tuple[float, float]:
    """Multiply-adds and seconds of all victims."""
    macs = seconds = 0.0
    for victim in params.complete_victims.values():
        if isinstance(victim, HeadParams):
            features, outputs = features_of(attacked, size.classes, size.shape), len(params.task) or size.classes
            adam = victim.solver == "adam"
            rows, steps = (victim.batch, victim.updates) if adam else (counts.learnt, EVALUATIONS)
            macs += counts.retrainings * TRAINING * features * outputs * rows * steps
            seconds += counts.retrainings * steps * seconds_of_step(features, outputs, rows)
            continue
        other = isinstance(victim, ScratchParams) and victim.classifier
        network = other or attacked, size.classes, size.shape
        images = victim.epochs * (counts.learnt + counts.poisons[-1]) + size.test / TRAINING
        macs += counts.retrainings * TRAINING * multiply_adds_of(*network) * images
        seconds += counts.retrainings * training_seconds_of(*network) * images
    return macs, seconds


def _passes(attack: FeatureCollision | Polytope | Matching) -> float:
    """Forward passes that crafting one poison costs as much as. Matching differentiates twice."""
    match attack:
        case FeatureCollision():
            return 2.0 * attack.iterations
        case Polytope():
            return 2.0 * attack.steps * attack.draws
        case Matching():
            return 6.0 * attack.steps * attack.restarts


@measured_once
def multiply_adds_per_second(architecture: Architecture, classes: int, shape: Shape) -> float:
    """Of crafting, measured on one core with a made-up batch that takes well under a second."""
    network = untrained(architecture, classes, shape[0]).requires_grad_(False)
    forward = multiply_adds(network, torch.rand(1, *shape))
    images = torch.rand(max(1, min(32, int(3e8 / forward))), *shape)

    def step() -> None:
        leaf = images.clone().requires_grad_()
        torch.autograd.grad(network(leaf).sum(), leaf)

    return 2.0 * forward * len(images) / least_seconds(step, 3)


@measured_once
def features_of(architecture: Architecture, classes: int, shape: Shape) -> int:
    """Numbers in what the last layer reads of an image."""
    return Features(untrained(architecture, classes, shape[0]), torch.rand(1, *shape)).size


@measured_once
def seconds_of_step(size: int, classes: int, rows: int) -> float:
    """One step of a head on one core, which takes longer than its multiply-adds would."""
    features, labels = torch.rand(rows, size), torch.arange(rows) % classes
    params = HeadParams(solver="adam", updates=10, batch=rows)
    return least_seconds(lambda: fit_head(features, labels, classes, params, 0), 3) / params.updates


def _architecture(params: Params) -> Architecture | None:
    """Of the attacked network; None if it is one of the store, which is not opened."""
    network = params.network
    if isinstance(network, TrainedNetwork):
        return network.classifier
    return network if isinstance(network, PublishedNetwork) or ":" in network.name else None
