"""What the training loops of several studies share: learning rates, optimizers, and an optimizer's state as plain data.

A learning rate is a function of the tick: the epoch where a fixed data set is gone through again and again, the step
where every batch is fresh. Nothing here keeps state between ticks, so a resumed run has the same rates.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from jobs.common.params import StudyParams


def device_of(network: nn.Module) -> torch.device:
    """Where the network's weights are."""
    return next(network.parameters()).device


class WarmUp(StudyParams):
    """Small learning rates at the start of training."""

    kind: Literal["none", "linear", "exponential"] = Field("none", description="how the rate rises to its full value")
    period: int = Field(10, ge=1, description="ticks (epochs of a fixed data set, else steps) until the full rate")

    def factor(self, tick: int) -> float:
        """What the learning rate is multiplied with, in (0, 1].

        exponential: 1 - exp(-(tick + 1) / period), and 1 from tick = period - 1 (Bansal et al. 2022, released code).
        """
        if self.kind == "none" or tick + 1 >= self.period:
            return 1.0
        progress = (tick + 1) / self.period
        return progress if self.kind == "linear" else 1 - math.exp(-progress)


class StepDecay(StudyParams):
    """Divide the learning rate at given ticks."""

    kind: Literal["step"] = Field("step", description="divide the rate at given ticks")
    milestones: tuple[int, ...] = Field((), description="ticks (epochs, else steps) from which the rate is decayed")
    factor: float = Field(0.1, gt=0, le=1, description="what the rate is multiplied with at each milestone")

    def at(self, tick: int, ticks: int) -> float:
        """What the learning rate is multiplied with, in (0, 1]."""
        return self.factor ** sum(tick >= milestone for milestone in self.milestones)


class CosineDecay(StudyParams):
    """Half a cosine wave from the full learning rate down to zero (Loshchilov & Hutter 2017, equation 5)."""

    kind: Literal["cosine"] = Field("cosine", description="half a cosine wave down to zero")

    def at(self, tick: int, ticks: int) -> float:
        """What the learning rate is multiplied with, in [0, 1]. ticks: how many there are in all."""
        return 0.5 * (1 + math.cos(math.pi * tick / ticks))


class LinearDecay(StudyParams):
    """A straight line from the full learning rate down to zero. After a linear warm-up: the triangle of Smith 2017."""

    kind: Literal["linear"] = Field("linear", description="a straight line down to zero")
    start: int = Field(0, ge=0, description="tick at which the rate begins to fall")

    def at(self, tick: int, ticks: int) -> float:
        """What the learning rate is multiplied with, in [0, 1]. ticks: how many there are in all."""
        return 1.0 if tick <= self.start else (ticks - tick) / (ticks - self.start)


class PolyDecay(StudyParams):
    """A power of what is left of training, from the full learning rate down to zero (Chen et al. 2017, section 4.1)."""

    kind: Literal["poly"] = Field("poly", description="a power of what is left of training, down to zero")
    power: float = Field(0.9, gt=0, le=10, description="the exponent")

    def at(self, tick: int, ticks: int) -> float:
        """What the learning rate is multiplied with, in [0, 1]. ticks: how many there are in all."""
        return float((1 - tick / ticks) ** self.power)


class OptimizerParams(StudyParams):
    """How the weights are moved."""

    kind: Literal["adam", "adamw", "sgd"] = Field("adam", description="the rule that moves the weights")
    learning_rate: float = Field(1e-3, gt=0, le=10, description="the full learning rate")
    weight_decay: float = Field(2e-4, ge=0, le=1, description="L2 penalty (adam, sgd) or decoupled decay (adamw)")
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum of sgd; unused by adam and adamw")
    nesterov: bool = Field(False, description="sgd looks ahead along its momentum; unused by adam and adamw")
    clip: float | None = Field(None, gt=0, description="bound on the 2-norm of the whole gradient; none: no bound")
    warm_up: WarmUp = Field(WarmUp(), description="small learning rates at the start")
    decay: StepDecay | CosineDecay | LinearDecay | PolyDecay = Field(
        StepDecay(), discriminator="kind", description="how the rate falls"
    )

    def rate(self, tick: int, ticks: int) -> float:
        """The learning rate at a tick of `ticks`."""
        return self.learning_rate * self.warm_up.factor(tick) * self.decay.at(tick, ticks)

    def build(self, scaled: Sequence[tuple[float, Sequence[nn.Parameter]]]) -> torch.optim.Optimizer:
        """The optimizer of groups of parameters, each with what its learning rate is multiplied with."""
        groups: list[dict[str, Any]] = [{"params": group, "scale": scale} for scale, group in scaled if group]
        match self.kind:
            case "adam":
                return torch.optim.Adam(groups, self.learning_rate, weight_decay=self.weight_decay, fused=True)
            case "adamw":
                return torch.optim.AdamW(groups, self.learning_rate, weight_decay=self.weight_decay, fused=True)
            case "sgd":
                options: Any = {"momentum": self.momentum, "nesterov": self.nesterov and self.momentum > 0}
                return torch.optim.SGD(
                    groups, self.learning_rate, **options, weight_decay=self.weight_decay, fused=True
                )


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group of parameters the learning rate, times the group's own scale."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]


def moments(optimizer: torch.optim.Optimizer) -> list[dict[str, Tensor]]:
    """All that an optimizer remembers of earlier steps: one dictionary per parameter, in order."""
    remembered = optimizer.state_dict()["state"]
    return [dict(remembered[index]) for index in sorted(remembered)]


def restore_moments(optimizer: torch.optim.Optimizer, saved: list[dict[str, Tensor]]) -> None:
    """Undo `moments`: an optimizer of the same parameters goes on exactly where the other one stopped.

    A moment takes the memory layout of its parameter: the fused rules walk both of them in the order of memory.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for parameter, remembered in zip(parameters, saved, strict=bool(saved)):
        optimizer.state[parameter] = {
            name: torch.empty_like(parameter).copy_(value)
            if value.shape == parameter.shape
            else value.to(parameter.device, copy=True)
            for name, value in remembered.items()
        }
