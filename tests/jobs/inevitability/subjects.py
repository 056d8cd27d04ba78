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


class Bright(Pixels):
    """The same images, all too bright."""

    def images(self, indices: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return super().images(indices, generator) + 0.5


def bright(split: Split, source: Source) -> Pixels:
    return Bright("bright", "0123456789", (16 * DIGITS.images[:COUNT]).to(torch.uint8), DIGITS.labels[:COUNT], white=16)
