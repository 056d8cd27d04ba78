"""What a method is said to cost, against the gradients that an update takes."""

import pytest
import torch

from jobs.common.attacks.ball import Ball
from jobs.common.training.adversarial.methods import MethodParams
from jobs.common.training.adversarial.methods.fgsm_rs import RandomStartStep
from jobs.common.training.adversarial.methods.free import Free
from jobs.common.training.adversarial.methods.natural import Natural
from jobs.common.training.adversarial.methods.pgd import ProjectedGradient
from jobs.common.training.adversarial.methods.trades import Trades
from tests.jobs.common.training.adversarial.tiny import images, network, objective


@pytest.mark.parametrize(
    "method",
    [Natural(), Free(), RandomStartStep(), ProjectedGradient(steps=3), Trades(steps=2)],
    ids=lambda method: method.kind,
)
def test_passes_are_those_of_an_update(method: MethodParams) -> None:
    data, counted = images(8), objective(network(), 8)
    points = data.images(torch.arange(8))
    method.update(counted, points, data.labels, torch.zeros_like(points), Ball("Linf", 0.03))
    assert counted.evaluations == method.passes
