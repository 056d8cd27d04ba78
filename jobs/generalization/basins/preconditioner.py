"""A diagonal that says along which weights a basin is long: the inverse root of a curvature, of determinant 1.

Rays that are drawn through it fill the region better than round ones, and so does the sum over them. The volume that is
estimated stays the same.

Source: Scherlis & Belrose 2025, "Estimating the Probability of Sampling a Trained Neural Network at Random", section 3.
"""

import torch
from pydantic import Field
from torch import Tensor

from jobs.common.curvature.hessian import Hessian
from jobs.common.params import StudyParams
from jobs.generalization.basins.rays import Filters
from jobs.generalization.basins.stacked_loss import Layout, StackedLoss


class PreconditionerParams(StudyParams):
    """Where the curvature comes from."""

    batch: int = Field(32, ge=1, description="adam: images in the minibatch of a gradient")
    gradients: int = Field(100, ge=1, le=100_000, description="adam: minibatches whose squared gradients are averaged")
    probes: int = Field(50, ge=1, le=100_000, description="hessian: random vectors that its diagonal is estimated from")
    damping: float = Field(
        0.1, gt=0, le=1000, description="added to the root of the curvature, in units of the root of its mean"
    )


def spread(curvature: Tensor, filters: Filters, damping: float) -> Tensor:
    """1 / (sqrt(|c|) + damping) in the coordinates of the filters, at a geometric mean of 1: float64 (n,).

    curvature: (size,), by the weights of the state. damping: relative to the root of the mean |c|. Weights without any
    curvature get the longest steps; where nothing is curved all steps are alike.
    """
    scaled = curvature.cpu().double()[filters.where].abs() * filters.norms.square()
    mean = scaled.mean()
    if not mean > 0:
        return torch.ones_like(scaled)
    inverse = 1 / ((scaled / mean).sqrt() + damping)
    return inverse / inverse.log().mean().exp()


def squared_gradients(loss: StackedLoss, batch: int, steps: int, seed: int) -> Tensor:
    """The mean square of the gradients of minibatches at the weights of the network: (size,).

    Adam's second moments come to this while the weights stand still, so every network has it, however it was trained.
    batch: inputs drawn for each of `steps` gradients, without replacement.
    """
    stream = torch.Generator().manual_seed(seed)
    total = torch.zeros_like(loss.centre, dtype=torch.float64)
    for _ in range(steps):
        chosen = torch.randperm(len(loss), generator=stream)[:batch].to(loss.centre.device)
        _, gradients = loss.gradients(loss.centre[None], chosen)
        total += gradients[0].double().square()
    return total / steps


def hessian_diagonal(hessian: Hessian, layout: Layout, probes: int, seed: int) -> Tensor:
    """The diagonal of a Hessian, from random signs z as the mean of z (H z): (size,), zero for what does not move.

    Source: Bekas, Kokiopoulou & Saad 2007, "An estimator for the diagonal of a matrix".
    """
    stream = torch.Generator().manual_seed(seed)
    total = torch.zeros(hessian.size, dtype=torch.float64, device=hessian.device)
    for _ in range(probes):
        signs = 2.0 * torch.randint(2, (1, hessian.size), generator=stream).double().to(hessian.device) - 1
        total += (signs * hessian.products(signs))[0]
    return layout.embed(hessian.direction(total / probes))
