"""Generated images as a set, for attacks."""

import hashlib
from functools import cached_property

import torch
from torch import Tensor


class GeneratedImages:
    """Images whose class is what a network says of them."""

    name = "generated"

    def __init__(self, points: Tensor, labels: Tensor, classes: tuple[str, ...]) -> None:
        """points: float32 (n, channels, height, width) in [0, 1]; labels: int64 (n,)."""
        self._points, self.labels, self.classes = points, labels, classes
        self.resize: int | None = None
        self.shape: tuple[int, int, int] = (points.shape[1], points.shape[2], points.shape[3])

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def digest(self) -> str:
        digest = hashlib.sha256(self._points.contiguous().numpy().data)
        digest.update(self.labels.contiguous().numpy().data)
        return digest.hexdigest()

    def images(self, indices: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self._points[indices]
