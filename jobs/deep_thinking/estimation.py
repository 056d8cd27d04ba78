"""What a training costs, before it is done: one instance at a few iterations, measured here, times all there are."""

import copy

import torch
from torch import Tensor

from jobs.common.estimation import TRAINING, Passes, least_seconds, measured_once
from jobs.common.multiplications import CountMacs
from jobs.deep_thinking.data import FreshBatches
from jobs.deep_thinking.networks import Thinker
from jobs.deep_thinking.params import NetworkParams, Params, ProblemParams
from service.run import Estimate

TIMED = 5  # iterations that are timed, at most: each costs the same


def estimate(params: Params) -> Estimate:
    """Training with all iterations in every update: the progressive loss takes fewer or, beside the full one, more.

    Tests on larger instances are not counted.
    """
    training = params.training
    cost = passes_at(params.problem, params.network, training.size, training.iterations)
    if isinstance(training.data, FreshBatches):
        updates = training.data.updates
    else:
        learnt = round(training.data.instances * (1 - training.data.held_out))
        updates = training.data.epochs * (learnt // training.batch)
    instances = updates * training.batch
    return Estimate(
        core_seconds=instances * cost.training,
        multiply_adds=float(TRAINING * cost.forward * instances),
        details={"weight updates": updates, "instances to train on": instances},
    )


@measured_once
def passes_at(problem: ProblemParams, network: NetworkParams, size: int, iterations: int) -> Passes:
    """Of one instance of a size, at all iterations."""
    solved = problem.build()
    with torch.random.fork_rng(devices=[]):
        net = network.build(solved, iterations).train()
    inputs, _ = solved.sample(size, 1, 0)
    timed = min(TIMED, iterations)
    forward = multiplications(net, inputs, iterations)

    def passes() -> None:
        logits, _ = net(inputs, timed)
        logits.sum().backward()
        net.zero_grad()

    return Passes(forward, least_seconds(passes, 2) * forward / multiplications(net, inputs, timed))


def multiplications(network: Thinker, inputs: Tensor, iterations: int) -> int:
    """Of one forward pass of an instance (1, channels, *positions), counted without computing them.

    Every iteration takes as many as the second.
    """
    shapes, shape = copy.deepcopy(network).to("meta"), inputs.to("meta")

    def counted(iterations: int) -> int:
        with torch.no_grad(), CountMacs() as counter:
            shapes(shape, iterations)
        total: int = counter.total
        return total

    first = counted(1)
    return first if iterations == 1 else first + (iterations - 1) * (counted(2) - first)
