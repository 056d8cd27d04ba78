"""What training is said to cost, against the gradients that an update takes."""

import pytest
import torch

from jobs.common.attacks.ball import Ball
from jobs.free_training.estimation import passes_of
from jobs.free_training.methods import MethodParams
from jobs.free_training.methods.fgsm_rs import RandomStartStep
from jobs.free_training.methods.free import Free
from jobs.free_training.methods.natural import Natural
from jobs.free_training.methods.pgd import ProjectedGradient
from jobs.free_training.methods.trades import Trades
from tests.jobs.free_training.tiny import images, network, objective


@pytest.mark.parametrize(
    "method",
    [Natural(), Free(), RandomStartStep(), ProjectedGradient(steps=3), Trades(steps=2)],
    ids=lambda method: method.kind,
)
def test_passes_are_those_of_an_update(method: MethodParams) -> None:
    data, counted = images(8), objective(network(), 8)
    points = data.images(torch.arange(8))
    method.update(counted, points, data.labels, torch.zeros_like(points), Ball("Linf", 0.03))
    assert counted.evaluations == passes_of(method)
