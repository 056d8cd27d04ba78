"""The Hessian of the mean loss by the weights, as its products with vectors.

Only products with vectors are ever computed, each by differentiating twice.

Source: Li et al. 2018, section 6 and figure 7 ("Are we really seeing convexity?").
"""

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from jobs.common.curvature.mean_loss import MeanLoss, flat, gradient_of


class SymmetricMatrix(Protocol):
    """A symmetric matrix that is known by what it does to vectors."""

    @property
    def size(self) -> int:
        """Rows."""

    @property
    def device(self) -> torch.device:
        """Where vectors and products are."""

    def products(self, vectors: Tensor) -> Tensor:
        """Its products with vectors. Both float64 (count, size)."""


class Hessian(MeanLoss):
    """The Hessian of the mean loss over a data set, at given weights, as a product with vectors.

    The mean is over images, whatever the batches: the released code sums the means of batches, so that its eigenvalues
    grow with the number of batches.
    """

    def __call__(self, vector: np.ndarray) -> np.ndarray:
        """The product with a vector. Both float64 (size,); computed in the type of the weights."""
        product: np.ndarray = self.products(torch.from_numpy(vector)[None].to(self.device))[0].cpu().numpy()
        return product

    def products(self, vectors: Tensor) -> Tensor:
        """The products with several vectors. Both float64 (count, size).

        The gradient is computed once for all of them, and differentiated along each.
        """
        moving = [weight.clone().requires_grad_() for weight in self.weights.values()]
        directions = [self.split(vector) for vector in vectors]
        total = torch.zeros(len(vectors), self.size, dtype=torch.float64, device=self.device)
        for share in self._shares(moving):
            gradient = gradient_of(share, moving, create_graph=True)
            for index, direction in enumerate(directions):
                slopes = torch.stack([(each * along).sum() for each, along in zip(gradient, direction, strict=True)])
                last = index == len(directions) - 1
                total[index] += flat(gradient_of(slopes.sum(), moving, retain_graph=not last))
        return total
