"""What keeps a patch smooth and printable, and what keeps it from relying on one part of itself.

Sources: Wu et al. 2020 and Thys et al. 2019 (total variation); Sharif et al. 2016, "Accessorize to a crime", and Thys
et al. 2019 (printability over 30 colours); Huang et al. 2023, "T-SEA" (patch cut-out).
"""

from typing import Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor

from jobs.common.params import StudyParams
from service.errors import FieldError

INKS = {
    "cyan": (0.05, 0.55, 0.80),
    "magenta": (0.75, 0.12, 0.45),
    "yellow": (0.93, 0.85, 0.15),
    "red": (0.73, 0.14, 0.12),
    "green": (0.10, 0.50, 0.25),
    "blue": (0.18, 0.18, 0.50),
}
"""colours of full inks on paper and of two of them on each other: typical of an office printer, in sRGB"""
PAPER, BLACK = 0.95, 0.10
TINTS, GREYS = 4, 6


class SmoothnessParams(StudyParams):
    """How much neighbouring pixels may differ: total variation."""

    weight: float = Field(2.5, ge=0, description="beside the loss of the detectors")
    form: Literal["absolute", "squared"] = Field(
        "absolute", description="differences to the right and down, absolute (the paper) or squared (its code)"
    )

    def loss(self, patch: Tensor) -> Tensor:
        """A scalar, divided by the numbers in the patch, so that the weight does not depend on its size."""
        across, down = patch[:, :, 1:] - patch[:, :, :-1], patch[:, 1:] - patch[:, :-1]
        if self.form == "absolute":
            return (across.abs().sum() + down.abs().sum()) / patch.numel()
        return (across.square().sum() + down.square().sum()) / patch.numel()


class PrintabilityParams(StudyParams):
    """How far the colours of a patch are from those that a printer has."""

    weight: float = Field(0.0, ge=0, description="beside the loss of the detectors; 0.01 in Thys et al.")
    colours: tuple[str, ...] = Field(
        (),
        max_length=1000,
        description="what your printer has, e.g. ['#f0f0f0', '#1a1a1a']; none: 30 typical ones, tints of the inks of "
        "an office printer and of two of them on each other, and greys",
    )

    @field_validator("colours")
    @classmethod
    def _readable(cls, colours: tuple[str, ...]) -> tuple[str, ...]:
        for colour in colours:
            digits = colour.removeprefix("#")
            if len(digits) != 6 or any(digit not in "0123456789abcdefABCDEF" for digit in digits):
                raise FieldError("colours", "be six hexadecimal digits each, as in '#f0f0f0'", colour)
        return colours

    @property
    def palette(self) -> Tensor:
        """The colours, (colours, 3) in [0, 1]."""
        if not self.colours:
            return printable_colours()
        values = [[int(colour.removeprefix("#")[at : at + 2], 16) / 255 for at in (0, 2, 4)] for colour in self.colours]
        return torch.tensor(values)

    def loss(self, patch: Tensor) -> Tensor:
        """A scalar: the mean distance of a pixel from the nearest colour."""
        pixels = patch.flatten(1).T  # (height x width, 3)
        squares = (pixels[:, None] - self.palette.to(patch)).square().sum(2)
        return squares.amin(1).clamp_min(1e-12).sqrt().mean()


def printable_colours() -> Tensor:
    """30 colours, (30, 3): each of six inks in four tints, and six greys. A tint mixes ink and paper by area."""
    shares = torch.linspace(1, 1 / TINTS, TINTS)[:, None]
    tints = [shares * torch.tensor(ink) + (1 - shares) * PAPER for ink in INKS.values()]
    greys = torch.linspace(BLACK, PAPER, GREYS)[:, None].expand(-1, 3)
    return torch.cat([*tints, greys])


class CutoutParams(StudyParams):
    """A part of the patch is hidden at random while it is optimised, so that it does not rely on one place of it."""

    probability: float = Field(0.0, ge=0, le=1, description="that a part is hidden in an iteration; 0.9 in T-SEA")
    share: float = Field(0.4, gt=0, le=1, description="sides of the hidden part, of those of the patch")
    fill: float = Field(0.5, ge=0, le=1, description="what is there instead, in all channels")

    def apply(self, patch: Tensor, generator: torch.Generator) -> Tensor:
        """The patch with a part hidden, or as it is. It always draws three numbers."""
        chance, down, across = torch.rand(3, generator=generator).tolist()
        if chance >= self.probability:
            return patch
        _, height, width = patch.shape
        rows, columns = max(1, round(self.share * height)), max(1, round(self.share * width))
        top, left = int(down * (height - rows + 1)), int(across * (width - columns + 1))
        hidden = torch.zeros(height, width, dtype=torch.bool, device=patch.device)
        hidden[top : top + rows, left : left + columns] = True
        return torch.where(hidden, torch.full_like(patch, self.fill), patch)
