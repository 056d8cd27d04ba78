"""Random changes to whole batches of images that leave their class as it is. Each image has draws of its own.

Sources: He et al. 2016, section 4.2 (crops of images padded by 4, flips); Shafahi et al. 2019, code (padded by 2).
"""

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from jobs.common.params import StudyParams


class AugmentationParams(StudyParams):
    """Random changes, drawn once for each minibatch."""

    padding: int = Field(0, ge=0, le=64, description="pixels of black on each side before a crop to the old size")
    flip: bool = Field(False, description="mirror each image left to right with probability one half")

    def apply(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """images: (batch, channels, height, width), changed or as they are. generator: on the CPU."""
        if self.padding:
            images = pad_and_crop(images, self.padding, generator)
        return flip(images, generator) if self.flip else images


def pad_and_crop(images: Tensor, padding: int, generator: torch.Generator) -> Tensor:
    """Pad with zeros on all sides and cut a window of the old size at a random place.

    images: (batch, channels, height, width). padding: pixels on each side, at least 0. generator: on the CPU.
    """
    batch, _, height, width = images.shape
    rows, columns = torch.randint(0, 2 * padding + 1, (2, batch), generator=generator).to(images.device)
    padded = functional.pad(images, (padding,) * 4)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # a view: (batch, channels, rows, columns, height, width)
    return windows[torch.arange(batch, device=images.device), :, rows, columns]


def flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each image left to right with probability one half.

    images: (batch, channels, height, width). generator: on the CPU.
    """
    flipped = torch.rand(len(images), generator=generator) < 0.5
    return torch.where(flipped.to(images.device).view(-1, 1, 1, 1), images.flip(3), images)
