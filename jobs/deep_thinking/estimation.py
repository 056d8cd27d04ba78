"""What a training costs, before it is done: one instance at all iterations, measured here, times the instances."""

import torch

from jobs.common.estimation import TRAINING, least_seconds
from jobs.common.multiplications import CountMacs
from jobs.deep_thinking.data import FreshBatches
from jobs.deep_thinking.params import Params
from service.run import Estimate

TRIED = 16  # instances that are timed


def estimate(params: Params) -> Estimate:
    """Training with all iterations in every update: the progressive loss takes fewer or, beside the full one, more.

    Tests on larger instances are not counted.
    """
    training = params.training
    problem = params.problem.build()
    with torch.random.fork_rng(devices=[]):
        network = params.build_network(problem).train()
    inputs, _ = problem.sample(training.size, TRIED, 0)
    with torch.no_grad(), CountMacs() as counter:
        network(inputs, training.iterations)

    def passes() -> None:
        logits, _ = network(inputs, training.iterations)
        logits.sum().backward()
        network.zero_grad()

    if isinstance(training.data, FreshBatches):
        updates = training.data.updates
    else:
        learnt = round(training.data.instances * (1 - training.data.held_out))
        updates = training.data.epochs * (learnt // training.batch)
    instances = updates * training.batch
    return Estimate(
        core_seconds=instances * least_seconds(passes, 2) / TRIED,
        multiply_adds=float(TRAINING * counter.total * instances / TRIED),
        details={"weight updates": updates, "instances to train on": instances},
    )
