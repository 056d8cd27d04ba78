"""A linear head on frozen features: the victim of transfer learning.

A poison is judged by a victim that has converged: an unfinished head does not even learn the poison itself. So heads
are trained for a number of updates, not of epochs, or to convergence by L-BFGS.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from scipy.optimize import minimize
from threadpoolctl import ThreadpoolController
from torch import Tensor, nn
from torch.nn import functional

from jobs.common.params import StudyParams
from service.errors import RunFailedError

INITIAL = 0.001  # deviation of a head's first weights (Shafahi et al. 2018, released code)
MOMENTS = ("first", "second")
EVALUATIONS = 2000  # of L-BFGS at most: it converges long before


class HeadParams(StudyParams):
    """A linear layer on the frozen features of the network: transfer learning."""

    kind: Literal["head"] = Field("head", description="a linear layer on frozen features")
    solver: Literal["lbfgs", "adam"] = Field("lbfgs", description="to convergence, or a number of updates by Adam")
    start: Literal["cold", "warm"] = Field("cold", description="from fresh weights, or from those of the clean head")
    l2: float = Field(1e-4, ge=0, le=10, description="penalty l2/2 ‖W‖² on the mean cross entropy")
    updates: int = Field(5700, ge=1, le=1_000_000, description="weight updates of Adam; the paper has 100 epochs of 57")
    batch: int = Field(32, ge=1, le=100_000, description="images in a minibatch of Adam")
    learning_rate: float = Field(0.01, gt=0, le=10, description="of Adam")


@dataclass(frozen=True)
class Head:
    """A linear layer. weight: (classes, D). bias: (classes,). moments: what Adam remembers, to go on from."""

    weight: Tensor
    bias: Tensor
    moments: dict[str, Tensor] = field(default_factory=dict)

    def __call__(self, features: Tensor) -> Tensor:
        """Logits (n, classes)."""
        return functional.linear(features, self.weight, self.bias)


def fit_head(
    features: Tensor, labels: Tensor, classes: int, params: HeadParams, seed: int, clean: Head | None = None
) -> Head:
    """Train a head. features: (n, D). labels: int64 (n,) in 0..classes-1. clean: what a warm start goes on from.

    RunFailedError if its weights stop being finite.
    """
    stream = torch.Generator().manual_seed(seed)
    if params.start == "warm" and clean is not None:
        weight, bias, moments = clean.weight.clone(), clean.bias.clone(), clean.moments
    else:
        weight, bias, moments = features.new_empty(classes, features.shape[1]), features.new_zeros(classes), {}
        nn.init.trunc_normal_(weight, std=INITIAL, a=-2 * INITIAL, b=2 * INITIAL, generator=stream)
    # the bias is the weight of a feature that is 1
    rows, start = torch.cat([features, features.new_ones(len(features), 1)], 1), torch.cat([weight, bias[:, None]], 1)
    one_hot = functional.one_hot(labels, classes).to(features.dtype)
    if params.solver == "lbfgs":
        trained, moments = _converged(rows, one_hot, start, params.l2), {}
    else:
        trained, moments = _adam(rows, one_hot, start, params, moments, stream)
    if not bool(torch.isfinite(trained).all()):
        raise RunFailedError(
            "the weights of a victim's head are not finite", hint="a lower learning_rate keeps them so"
        )
    return Head(trained[:, :-1].contiguous(), trained[:, -1].clone(), moments)


def _slope(rows: Tensor, one_hot: Tensor, weight: Tensor, l2: float) -> tuple[Tensor, Tensor]:
    """Logarithms of the classes' shares (n, classes), and the slope of the penalised mean cross entropy by the weight.

    Without autograd, which takes three times as long for so small a step. one_hot: (n, classes), 1 for the label.
    """
    shares = (rows @ weight.T).log_softmax(1)
    slope = (shares.exp() - one_hot).T @ rows / len(rows)
    if l2:
        slope[:, :-1] += l2 * weight[:, :-1]
    return shares, slope


def _converged(rows: Tensor, one_hot: Tensor, start: Tensor, l2: float) -> Tensor:
    """Where the penalised mean cross entropy is least, in float64 on the way.

    By L-BFGS with a line search for the strong Wolfe conditions (Moré & Thuente 1994), as scipy has it.
    """
    rows, one_hot = rows.double(), one_hot.double()

    def value_and_slope(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weight = torch.from_numpy(flat).view(start.shape)
        shares, slope = _slope(rows, one_hot, weight, l2)
        loss = l2 / 2 * weight[:, :-1].square().sum() - (shares * one_hot).sum() / len(rows)
        return float(loss), slope.flatten().numpy()

    options = {"maxiter": EVALUATIONS, "maxfun": EVALUATIONS, "maxcor": 20, "gtol": 1e-6, "ftol": 1e-12}
    begin = start.double().flatten().numpy()
    with _blas().limit(limits=torch.get_num_threads(), user_api="blas"):  # scipy's own threads only wait for each other
        trained = minimize(value_and_slope, begin, jac=True, method="L-BFGS-B", options=options).x
    return torch.from_numpy(trained).view(start.shape).to(start.dtype)


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController()


def _adam(
    rows: Tensor,
    one_hot: Tensor,
    weight: Tensor,
    params: HeadParams,
    moments: dict[str, Tensor],
    stream: torch.Generator,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Steps of Adam (Kingma & Ba 2015, algorithm 1), and its moments. An epoch's last batch may be short."""
    weight = weight.clone()
    first, second = (moments[name].clone() if moments else torch.zeros_like(weight) for name in MOMENTS)
    begin = int(moments["step"]) if moments else 0
    batches: Iterator[tuple[Tensor, Tensor]] = iter(())
    for update in range(begin + 1, begin + params.updates + 1):
        if (batch := next(batches, None)) is None:
            order = torch.randperm(len(rows), generator=stream)
            batches = zip(*(torch.split(each[order], params.batch) for each in (rows, one_hot)), strict=True)
            batch = next(batches)
        _, slope = _slope(*batch, weight, params.l2)
        first.lerp_(slope, 0.1)
        second.mul_(0.999).addcmul_(slope, slope, value=0.001)
        scale = (second / (1 - 0.999**update)).sqrt_().add_(1e-8)
        weight.addcdiv_(first, scale, value=-params.learning_rate / (1 - 0.9**update))
    return weight, {"step": torch.tensor(begin + params.updates), "first": first, "second": second}
