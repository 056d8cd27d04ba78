"""What a training costs, before it is done: one instance at a few iterations, measured here, times all there are."""

import copy

import torch
from torch import Tensor

from jobs.common.estimation import TRAINING, least_seconds
from jobs.common.multiplications import CountMacs
from jobs.deep_thinking.data import FreshBatches
from jobs.deep_thinking.networks import Thinker
from jobs.deep_thinking.params import Params
from service.run import Estimate

TIMED = 5  # iterations that are timed, at most: each costs the same


def estimate(params: Params) -> Estimate:
    """Training with all iterations in every update: the progressive loss takes fewer or, beside the full one, more.

    Tests on larger instances are not counted.
    """
    training = params.training
    problem = params.problem.build()
    with torch.random.fork_rng(devices=[]):
        network = params.build_network(problem).train()
    inputs, _ = problem.sample(training.size, 1, 0)
    timed = min(TIMED, training.iterations)
    forward = multiplications(network, inputs, training.iterations)

    def passes() -> None:
        logits, _ = network(inputs, timed)
        logits.sum().backward()
        network.zero_grad()

    seconds = least_seconds(passes, 2) * forward / multiplications(network, inputs, timed)
    if isinstance(training.data, FreshBatches):
        updates = training.data.updates
    else:
        learnt = round(training.data.instances * (1 - training.data.held_out))
        updates = training.data.epochs * (learnt // training.batch)
    instances = updates * training.batch
    return Estimate(
        core_seconds=instances * seconds,
        multiply_adds=float(TRAINING * forward * instances),
        details={"weight updates": updates, "instances to train on": instances},
    )


def multiplications(network: Thinker, inputs: Tensor, iterations: int) -> int:
    """Of one forward pass of an instance (1, channels, *positions), counted without computing them."""
    with torch.no_grad(), CountMacs() as counter:
        copy.deepcopy(network).to("meta")(inputs.to("meta"), iterations)
    total: int = counter.total
    return total
