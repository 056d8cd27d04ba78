"""Optimizers: the rule that moves the weights, the rate it moves them at, and its state as plain data."""

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from jobs.common.params import StudyParams
from jobs.common.training import rules
from jobs.common.training.schedules import Decay, StepDecay, WarmUp
from service.errors import FieldError, InputError


def device_of(network: nn.Module) -> torch.device:
    """Where the network's weights are; the CPU, if it has none."""
    return next((tensor.device for tensor in chain(network.parameters(), network.buffers())), torch.device("cpu"))


Kind = Literal[
    "adam",
    "adamw",
    "sgd",
    "amsgrad",
    "adamax",
    "nadam",
    "radam",
    "rmsprop",
    "adagrad",
    "adadelta",
    "asgd",
    "lbfgs",
]

AVERAGING = {kind: "betas" for kind in ("adam", "adamw", "amsgrad", "adamax", "nadam", "radam")}
AVERAGING |= {"rmsprop": "alpha", "adadelta": "rho"}
"""torch's name of what is kept of the moments"""

OTHERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adamax": rules.Adamax,
    "nadam": rules.NAdam,
    "radam": rules.RAdam,
    "rmsprop": rules.RMSprop,
    "adagrad": rules.Adagrad,
    "adadelta": rules.Adadelta,
    "asgd": rules.ASGD,
}
"""with their defaults; so is lbfgs, of which an update is up to 20 iterations on one batch"""


class OptimizerParams(StudyParams):
    """How the weights are moved."""

    kind: Kind = Field("adam", description="the rule that moves the weights")
    learning_rate: float = Field(1e-3, gt=0, le=10, description="the full learning rate")
    weight_decay: float = Field(2e-4, ge=0, le=1, description="L2 penalty (adam, sgd) or decoupled decay (adamw)")
    averaging: tuple[Annotated[float, Field(ge=0, lt=1)], ...] | None = Field(
        None,
        description="what is kept of the moments in an update: two numbers of adam and its kin (betas), one of rmsprop "
        "(alpha) and adadelta (rho); none: torch's defaults",
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum of sgd; unused by all others")
    nesterov: bool = Field(False, description="sgd looks ahead along its momentum; unused by all others")
    clip: float | None = Field(None, gt=0, description="bound on the 2-norm of the whole gradient; none: no bound")
    warm_up: WarmUp = Field(WarmUp(), description="small learning rates at the start")
    decay: Decay = Field(StepDecay(), description="how the rate falls")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        """The rule takes what is given for it.

        L-BFGS compares losses and gradients at several weights: both have to be those of one function.
        """
        if self.averaging is not None:
            count = {"betas": 2, "alpha": 1, "rho": 1}.get(AVERAGING.get(self.kind, ""), 0)
            if len(self.averaging) != count:
                allowed = f"have {count} numbers for {self.kind}" if count else f"be none for {self.kind}"
                raise FieldError("averaging", allowed, list(self.averaging))
        if self.kind == "lbfgs":
            for name, value in (("weight_decay", self.weight_decay or None), ("clip", self.clip)):
                if value is not None:
                    raise FieldError(name, f"be {'0' if name == 'weight_decay' else 'none'} for lbfgs", value)
        return self

    def rate(self, tick: int, ticks: int) -> float:
        """The learning rate at a tick of `ticks`."""
        return self.learning_rate * self.warm_up.factor(tick) * self.decay.at(tick, ticks)

    def build(self, scaled: Sequence[tuple[float, Sequence[nn.Parameter]]]) -> torch.optim.Optimizer:
        """The optimizer of groups of parameters, each with what its learning rate is multiplied with."""
        groups: list[dict[str, Any]] = [{"params": group, "scale": scale} for scale, group in scaled if group]
        if not groups:
            raise InputError("the network has no weights that could be trained")
        kept: Any = {}
        if self.averaging is not None:
            kept = {AVERAGING[self.kind]: self.averaging if len(self.averaging) == 2 else self.averaging[0]}
        rate, decay = self.learning_rate, self.weight_decay
        match self.kind:
            case "adam" | "amsgrad":
                amsgrad = self.kind == "amsgrad"
                return rules.Adam(groups, rate, weight_decay=decay, amsgrad=amsgrad, fused=True, **kept)
            case "adamw":
                return rules.AdamW(groups, rate, weight_decay=decay, fused=True, **kept)
            case "sgd":
                options: Any = {"momentum": self.momentum, "nesterov": self.nesterov and self.momentum > 0}
                return rules.SGD(groups, rate, **options, weight_decay=decay, fused=True)
            case "lbfgs":
                if len(groups) > 1:
                    raise FieldError(
                        "optimizer.kind", "be another one where weights have rates of their own", self.kind
                    )
                return rules.LBFGS(groups, rate)
            case _:
                return OTHERS[self.kind](groups, rate, weight_decay=decay, **kept)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group of parameters the learning rate, times the group's own scale."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]


def moments(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """All that an optimizer remembers of earlier updates: a dictionary for each parameter, in order."""
    remembered = optimizer.state_dict()["state"]
    return [dict(remembered.get(index, {})) for index, _ in enumerate(_parameters(optimizer))] if remembered else []


def restore_moments(optimizer: torch.optim.Optimizer, saved: list[dict[str, Any]]) -> None:
    """Undo `moments`: an optimizer of the same parameters goes on exactly where the other one stopped.

    A moment takes the memory layout of its parameter: the fused rules walk both of them in the order of memory.
    """
    for parameter, remembered in zip(_parameters(optimizer), saved, strict=bool(saved)):
        if remembered:
            optimizer.state[parameter] = {name: _copied(value, parameter) for name, value in remembered.items()}


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _copied(value: Any, parameter: nn.Parameter) -> Any:
    """A moment, or a list of them, beside its parameter."""
    if isinstance(value, list):
        return [_copied(each, parameter) for each in value]
    if not isinstance(value, Tensor):
        return value
    if value.shape == parameter.shape:
        return torch.empty_like(parameter).copy_(value)
    return value.to(parameter.device, copy=True)


def second_moments(optimizer: torch.optim.Optimizer, network: nn.Module) -> dict[str, Tensor]:
    """The running means of squared gradients that Adam and its kin remember, by the names of the network's weights.

    On the CPU; empty of an optimizer that has none.
    """
    remembered = {name: optimizer.state.get(weight, {}) for name, weight in network.named_parameters()}
    squares = {name: state.get("exp_avg_sq", state.get("square_avg")) for name, state in remembered.items()}
    return {name: square.detach().cpu().clone() for name, square in squares.items() if square is not None}
