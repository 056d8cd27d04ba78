"""Symmetric matrices that are written out, as the functions of the room take them."""

import numpy as np
import torch
from torch import Tensor


class Dense:
    """A matrix by its entries, which counts the products that it is asked for."""

    def __init__(self, entries: Tensor) -> None:
        self.entries, self.size, self.asked = entries.double(), len(entries), 0
        self.device = torch.device("cpu")

    def products(self, vectors: Tensor) -> Tensor:
        self.asked += len(vectors)
        return vectors @ self.entries


def rotated(values: np.ndarray, seed: int = 0) -> Dense:
    """A matrix with these eigenvalues and random eigenvectors."""
    size = len(values)
    rotation = np.linalg.qr(np.random.default_rng(seed).standard_normal((size, size)))[0]
    return Dense(torch.from_numpy(rotation * values @ rotation.T))
