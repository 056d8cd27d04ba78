"""Optimizers: the rule that moves the weights, the rate it moves them at, and its state as plain data."""

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from jobs.common.params import StudyParams
from jobs.common.training.schedules import Decay, StepDecay, WarmUp
from service.errors import InputError


def device_of(network: nn.Module) -> torch.device:
    """Where the network's weights are; the CPU, if it has none."""
    return next((tensor.device for tensor in chain(network.parameters(), network.buffers())), torch.device("cpu"))


Kind = Literal["adam", "adamw", "sgd", "amsgrad", "adamax", "nadam", "radam", "rmsprop", "adagrad", "adadelta", "asgd"]

OTHERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adamax": torch.optim.Adamax,
    "nadam": torch.optim.NAdam,
    "radam": torch.optim.RAdam,
    "rmsprop": torch.optim.RMSprop,
    "adagrad": torch.optim.Adagrad,
    "adadelta": torch.optim.Adadelta,
    "asgd": torch.optim.ASGD,
}
"""with their defaults"""


class OptimizerParams(StudyParams):
    """How the weights are moved."""

    kind: Kind = Field("adam", description="the rule that moves the weights")
    learning_rate: float = Field(1e-3, gt=0, le=10, description="the full learning rate")
    weight_decay: float = Field(2e-4, ge=0, le=1, description="L2 penalty (adam, sgd) or decoupled decay (adamw)")
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum of sgd; unused by all others")
    nesterov: bool = Field(False, description="sgd looks ahead along its momentum; unused by all others")
    clip: float | None = Field(None, gt=0, description="bound on the 2-norm of the whole gradient; none: no bound")
    warm_up: WarmUp = Field(WarmUp(), description="small learning rates at the start")
    decay: Decay = Field(StepDecay(), description="how the rate falls")

    def rate(self, tick: int, ticks: int) -> float:
        """The learning rate at a tick of `ticks`."""
        return self.learning_rate * self.warm_up.factor(tick) * self.decay.at(tick, ticks)

    def build(self, scaled: Sequence[tuple[float, Sequence[nn.Parameter]]]) -> torch.optim.Optimizer:
        """The optimizer of groups of parameters, each with what its learning rate is multiplied with."""
        groups: list[dict[str, Any]] = [{"params": group, "scale": scale} for scale, group in scaled if group]
        if not groups:
            raise InputError("the network has no weights that could be trained")
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
            case "amsgrad":
                return torch.optim.Adam(
                    groups, self.learning_rate, weight_decay=self.weight_decay, amsgrad=True, fused=True
                )
            case _:
                return OTHERS[self.kind](groups, self.learning_rate, weight_decay=self.weight_decay)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group of parameters the learning rate, times the group's own scale."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]


def moments(optimizer: torch.optim.Optimizer) -> list[dict[str, Tensor]]:
    """All that an optimizer remembers of earlier updates: one dictionary per parameter, in order."""
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


def second_moments(optimizer: torch.optim.Optimizer, network: nn.Module) -> dict[str, Tensor]:
    """The running means of squared gradients that Adam and its kin remember, by the names of the network's weights.

    On the CPU; empty of an optimizer that has none.
    """
    remembered = {name: optimizer.state.get(weight, {}) for name, weight in network.named_parameters()}
    squares = {name: state.get("exp_avg_sq", state.get("square_avg")) for name, state in remembered.items()}
    return {name: square.detach().cpu().clone() for name, square in squares.items() if square is not None}
