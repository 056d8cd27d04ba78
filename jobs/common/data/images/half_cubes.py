"""Points of which the density is known: uniform in the cube, a class being a half of it."""

import hashlib

import torch
from torch import Tensor

from jobs.common.data.images.base import Source
from jobs.common.data.sets import Split

COUNTS: dict[Split, int] = {"train": 4000, "test": 1000}
SEEDS: dict[Split, int] = {"train": 0, "test": 1}


class HalfCubes:
    """Grey images with uniform pixels, of the class of their brightness at the first pixel: below 1/2 or not.

    On its half the density of a class is twice the uniform one. To first order no two classes of equal volume are
    harder to leave by small perturbations, so that ceilings of robust accuracy (Shafahi et al. 2019, theorem 2) are
    nearly reached.
    """

    name, classes = "half_cubes", ("dark", "bright")

    def __init__(self, split: Split, side: int) -> None:
        """side: of an image, in pixels."""
        self.shape: tuple[int, int, int] = (1, side, side)
        self.resize: int | None = None
        stream = torch.Generator().manual_seed(SEEDS[split])
        self._points = torch.rand(COUNTS[split], *self.shape, generator=stream)
        self.labels = (self._points[:, 0, 0, 0] >= 0.5).long()
        self.digest = hashlib.sha256(f"half cubes {split} {side}".encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.labels)

    def images(self, indices: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self._points[indices]


def half_cubes(split: Split, source: Source) -> HalfCubes:
    """4,000 images to train and 1,000 to test; the side is `image_size`."""
    return HalfCubes(split, source.image_size)
