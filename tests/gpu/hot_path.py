"""What a hot path is: a computation, its bound, and the plain way of the code released with its paper."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from jobs.common.models.classifiers import classifier
from tests.gpu.machine import Machine

Way = Callable[[], object]


@dataclass(frozen=True)
class HotPath:
    """What is measured."""

    samples: int
    """that a call of `ours` works on; the others are brought to as many"""
    ours: Way
    bound: Way
    bound_samples: int
    plain: Way | None
    plain_samples: int
    goal: float
    """share of the bound that is to be reached: 0.6 in training, 0.8 in evaluation"""


class LeftOutError(Exception):
    """This path is not measured here; says why."""


def network_of(machine: Machine, name: str, options: dict[str, object], classes: int = 10) -> nn.Module:
    torch.manual_seed(0)
    return classifier(name, classes=classes, channels=3, **options).to(machine.device)
