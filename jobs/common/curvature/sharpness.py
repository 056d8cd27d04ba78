"""Sharpness that does not change when a network is written with other weights: how far the loss rises nearby.

A perturbation of the weights w is scale * u, with u in a ball: scale |w| makes it adaptive, so that multiplying a layer
by a number and dividing the next by it changes nothing.

Sources: Kwon et al. 2021, "ASAM: adaptive sharpness-aware minimization", section 3; Andriushchenko et al. 2023, "A
modern look at the relationship between sharpness and generalization", section 2, of which S_max and S_avg are.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from jobs.common.curvature.mean_loss import MeanLoss
from jobs.common.curvature.probes import gaussian

Ball = Literal["L2", "Linf"]


def worst_case(loss: MeanLoss, scale: Tensor, radius: float, ball: Ball, *, steps: int, seed: int) -> float:
    """max of L(w + scale * u) - L(w) over |u| <= radius, from below: the most that an ascent from a random point meets.

    scale: float64 (size,). steps: gradients. Each step goes towards the point of the ball that the gradient points to,
    all the way at first and half as far whenever the loss falls; for a loss that is convex along the way no step falls,
    and for a quadratic one it is the power method (Journee et al. 2010, "Generalized power method for sparse principal
    component analysis", algorithm 1). Infinite where the loss is not finite; at least 0, which u = 0 has.
    """
    centre = loss.mean_loss()
    point = _farthest(gaussian(loss.size, [seed], loss.device)[0] * (scale > 0), radius, ball)
    value, gradient = loss.value_and_gradient_at(scale * point)
    most, stride = max(value, centre), 1.0
    for _ in range(steps - 1):
        if not (math.isfinite(value) and bool(torch.isfinite(gradient).all())):
            return math.inf
        target = _farthest(scale * gradient, radius, ball)
        there = point + stride * (target - point)
        other, slope = loss.value_and_gradient_at(scale * there)
        if other >= value or not math.isfinite(other):
            point, value, gradient = there, other, slope
            most, stride = max(most, value), min(1.0, 2 * stride)
        else:
            stride /= 2
    return most - centre if math.isfinite(value) else math.inf


def average_case(loss: MeanLoss, scale: Tensor, radius: float, seeds: Sequence[int]) -> list[float]:
    """L(w + radius * scale * z) - L(w) for standard normal z, one a seed; their mean is the average sharpness."""
    centre = loss.mean_loss()
    return [loss.value_at(radius * scale * gaussian(loss.size, [seed], loss.device)[0]) - centre for seed in seeds]


def _farthest(direction: Tensor, radius: float, ball: Ball) -> Tensor:
    """The point of the ball around 0 that lies farthest along a direction; 0 for a direction of 0."""
    if ball == "Linf":
        return radius * direction.sign()
    length: Tensor = direction.norm()
    return radius * direction / length.clamp_min(1e-300)
