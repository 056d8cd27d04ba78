"""Images with every pixel replicated, and networks that average replicated pixels before they look at them."""

import hashlib

import torch
from torch import Tensor, nn

from jobs.common.attacks import Norm
from jobs.common.data.images.base import ImageSet
from jobs.inevitability.bounds.resolution import average, replicate, scale

ORDERS: dict[Norm, float] = {"Linf": float("inf"), "L2": 2.0, "L1": 1.0, "L0": 0.0}
"""the q of each norm"""


def factor(norm: Norm, resolution: int) -> float:
    """By how much the norm of an image grows where its pixels are replicated `resolution` times in each direction."""
    return scale(resolution, ORDERS[norm])


def norms_of(images: Tensor, norm: Norm) -> Tensor:
    """The norm of each image, in float64: (batch, ...) -> (batch,). In L0: its coordinates that are not 0."""
    lengths: Tensor = torch.linalg.vector_norm(images.double().flatten(1), ord=ORDERS[norm], dim=1)
    return lengths


class Replicated:
    """A set whose pixels are replicated. Shafahi et al. 2019, section 5, call such a set of digits b-MNIST."""

    def __init__(self, whole: ImageSet, resolution: int) -> None:
        """resolution: how many times in each direction."""
        self.whole, self.resolution = whole, resolution
        self.name, self.classes, self.labels = whole.name, whole.classes, whole.labels
        self.resize: int | None = None
        channels, height, width = whole.shape
        self.shape: tuple[int, int, int] = (channels, height * resolution, width * resolution)

    def __len__(self) -> int:
        return len(self.whole)

    @property
    def digest(self) -> str:
        return hashlib.sha256(f"{self.whole.digest} replicated {self.resolution}".encode()).hexdigest()

    def images(self, indices: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return replicate(self.whole.images(indices, generator), self.resolution)


def at_resolution(images: ImageSet, resolution: int) -> ImageSet:
    """The set with its pixels replicated; the set itself at 1."""
    return images if resolution == 1 else Replicated(images, resolution)


class Averaged(nn.Module):
    """A network for images of one resolution, behind the average of each block of replicated pixels."""

    def __init__(self, network: nn.Module, resolution: int) -> None:
        super().__init__()
        self.network, self.resolution = network, resolution

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(average(images, self.resolution))
        return logits
