"""The Hessian of the mean loss by the weights, as its products with vectors.

Only products with vectors are ever computed, each by differentiating twice.

Source: Li et al. 2018, section 6 and figure 7 ("Are we really seeing convexity?").
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from jobs.common.curvature.mean_loss import MeanLoss, flat, gradient_of

Differentiable = tuple[Sequence[Tensor], Sequence[Tensor]]
"""parameters, and a gradient by them"""


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

    _whole: Differentiable | None = None
    """of all images, if they are one batch"""

    def __call__(self, vector: np.ndarray) -> np.ndarray:
        """The product with a vector. Both float64 (size,); computed in the type of the weights."""
        product: np.ndarray = self.products(torch.from_numpy(vector)[None].to(self.device))[0].cpu().numpy()
        return product

    def products(self, vectors: Tensor) -> Tensor:
        """The products with several vectors. Both float64 (count, size).

        The gradient is computed once for all of them, and differentiated along each; where the data set is one batch,
        once for all calls.
        """
        directions = [self.split(vector) for vector in vectors]

        def products(rows: slice) -> Tensor:
            moving, gradient = self._gradient(rows)
            along = torch.empty(len(vectors), self.size, dtype=torch.float64, device=self.device)
            for product, direction in zip(along, directions, strict=True):
                slopes = torch.stack([(each * step).sum() for each, step in zip(gradient, direction, strict=True)])
                product.copy_(flat(gradient_of(slopes.sum(), moving, retain_graph=True)))
            return along

        total = torch.zeros(len(vectors), self.size, dtype=torch.float64, device=self.device)
        for part in self._passes(products, "products with the Hessian"):
            total += part
        return total

    def _gradient(self, rows: slice) -> Differentiable:
        """What some images add to the gradient, to be differentiated again. That of all images is kept."""
        if self._whole is not None and len(self._images[rows]) == len(self._images):
            return self._whole
        self._whole = None  # its memory is needed
        moving = [weight.clone().requires_grad_() for weight in self.weights.values()]
        gradient = moving, gradient_of(self._share(moving, rows), moving, create_graph=True)
        if len(self._images[rows]) == len(self._images):
            self._whole = gradient
        return gradient
