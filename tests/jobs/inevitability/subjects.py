"""Networks and images by import path, whose curves are known exactly."""

import torch
from torch import Tensor, nn

from jobs.common.data.images.base import Pixels, Source
from jobs.common.data.sets import Split
from tests.jobs.common.attacks.linear import LinearDigits

DIGITS = LinearDigits()
COUNT = 60


def linear() -> nn.Module:
    """Softmax regression, whose robustness is known exactly."""
    return DIGITS.model


def digits(split: Split, source: Source) -> Pixels:
    """The first 60 images that it was not fitted to."""
    return pixels(DIGITS.images[:COUNT])


def pixels(images: Tensor) -> Pixels:
    return Pixels("test_digits", "0123456789", (16 * images).round().to(torch.uint8), DIGITS.labels[:COUNT], white=16)


class NeverNine(nn.Module):
    """The linear model without a word for nines."""

    def __init__(self) -> None:
        super().__init__()
        self.network = LinearDigits().model

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images)
        return logits.index_fill(1, torch.tensor([9]), -100.0)


def never_nine() -> nn.Module:
    return NeverNine()


def noise_images(spread: float = 0.05, size: int = 64) -> nn.Module:
    """x = 1/2 + spread z, an image of 8x8 pixels."""
    layer = nn.Linear(size, 64)
    with torch.no_grad():
        layer.weight.copy_(spread * torch.eye(64, size))
        layer.bias.fill_(0.5)
    return nn.Sequential(layer, nn.Unflatten(1, (1, 8, 8)))


def first_pixel() -> nn.Module:
    """Class 1 where the first pixel is above 1/2, else class 0; the other eight never."""
    layer = nn.Linear(64, 10)
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.copy_(torch.tensor([0.5, -0.5] + 8 * [-100.0]))
        layer.weight[0, 0], layer.weight[1, 0] = -1.0, 1.0
    return nn.Sequential(nn.Flatten(), layer)


class Bright(Pixels):
    """The same images, all too bright."""

    def images(self, indices: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return super().images(indices, generator) + 0.5


def bright(split: Split, source: Source) -> Pixels:
    return Bright("bright", "0123456789", (16 * DIGITS.images[:COUNT]).to(torch.uint8), DIGITS.labels[:COUNT], white=16)
