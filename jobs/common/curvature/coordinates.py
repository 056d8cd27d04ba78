"""Coordinates in which a network's weights are measured, so that its curvature does not depend on their scale.

In coordinates u with weights w = scale * u the Hessian is D H D, D = diag(scale). Networks with ReLU compute the same
after a layer is multiplied by a number and the next divided by it, which changes H but neither of these:

filter: the scale of a weight is the norm of its filter, the slice along dimension 0; parameters of fewer than two
dimensions do not move. Source: Huang et al. 2020 ("Understanding Generalization through Visualizations"), section 5.
elementwise: its own magnitude. Source: Kwon et al. 2021 ("ASAM"), section 3.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from jobs.common.curvature.hessian import SymmetricMatrix

Coordinates = Literal["weights", "filter", "elementwise"]


def scale_of(weights: Mapping[str, Tensor], coordinates: Coordinates) -> Tensor:
    """How far a step of 1 in each coordinate moves its weight: float64 (size,), at least 0."""
    parts = []
    for weight in weights.values():
        wide = weight.detach().double()
        match coordinates:
            case "weights":
                scale = torch.ones_like(wide)
            case "elementwise":
                scale = wide.abs()
            case "filter" if wide.ndim < 2:
                scale = torch.zeros_like(wide)
            case "filter":
                norms = wide.flatten(1).norm(dim=1)
                scale = norms.view(-1, *[1] * (wide.ndim - 1)).expand_as(wide)
        parts.append(scale.reshape(-1))
    return torch.cat(parts)


@dataclass(frozen=True)
class Scaled:
    """A symmetric matrix H in other coordinates: D H D. scale: the diagonal of D, float64 (size,), on its device."""

    matrix: SymmetricMatrix
    scale: Tensor

    @property
    def size(self) -> int:
        return self.matrix.size

    @property
    def device(self) -> torch.device:
        return self.matrix.device

    def products(self, vectors: Tensor) -> Tensor:
        """Both float64 (count, size)."""
        return self.scale * self.matrix.products(self.scale * vectors)
