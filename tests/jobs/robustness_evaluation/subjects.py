"""Networks to evaluate and images to evaluate them on, by import path."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from jobs.common.data.images.base import Pixels, Source
from jobs.common.data.sets import Split
from tests.jobs.common.attacks.linear import LinearDigits

DIGITS = LinearDigits()


def linear() -> nn.Module:
    """Softmax regression, whose robustness is known exactly."""
    return DIGITS.model


def digits(split: Split, source: Source) -> Pixels:
    """The 500 images that it was not fitted to."""
    return Pixels("test_digits", "0123456789", (16 * DIGITS.images).round().to(torch.uint8), DIGITS.labels, white=16)


class BrightOnes(Pixels):
    """The same images; the 51st has a pixel that is too bright."""

    def __init__(self) -> None:
        super().__init__("bright", "0123456789", (16 * DIGITS.images).to(torch.uint8), DIGITS.labels, white=16)

    def images(self, indices: Tensor, generator: torch.Generator | None = None) -> Tensor:
        images = super().images(indices, generator)
        images[indices == 50, 0, 0, 0] = 1.5
        return images


def bright(split: Split, source: Source) -> BrightOnes:
    return BrightOnes()


class Odd(nn.Module):
    """The linear model with something wrong with it."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.linear = kind, LinearDigits().model

    def train(self, mode: bool = True) -> "Odd":
        super().train(mode)
        self.training |= self.kind == "always in training"
        return self

    def forward(self, images: Tensor) -> Any:
        logits = self.linear(images)
        match self.kind:
            case "probabilities":
                return logits.softmax(1)
            case "rounded":  # its gradient is zero everywhere
                return logits.round()
            case "lost":  # no numbers for images whose pixels are not whole sixteenths, as those attacked are not
                return logits.masked_fill((16 * images % 1).flatten(1).any(1, keepdim=True), torch.nan)
            case "five classes":
                return logits[:, :5]
            case "two answers":
                return logits, logits
        return logits


class Failing(Odd):
    """Leaves a line for each slice that is attacked, and fails on that which begins with the 21st image."""

    def __init__(self, folder: str) -> None:
        super().__init__("failing")
        self.folder = folder

    def forward(self, images: Tensor) -> Any:
        first = next((each for each in (0, 20, 40) if torch.equal(images, DIGITS.images[each : each + 20])), None)
        if first is not None and images.requires_grad:
            with open(Path(self.folder) / "attacked", "a") as file:
                file.write(f"{first}\n")
            if first == 20 and not (Path(self.folder) / "mended").exists():
                raise ArithmeticError("it does not converge")
        return super().forward(images)


def odd(kind: str) -> nn.Module:
    return Odd(kind)


def failing(folder: str) -> nn.Module:
    return Failing(folder)


def not_a_module() -> str:
    return "network"


def halves(split: Split, source: Source) -> Pixels:
    """Digits below five and the others."""
    return Pixels("halves", "lh", (16 * DIGITS.images).to(torch.uint8), DIGITS.labels // 5, white=16)


def two() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
