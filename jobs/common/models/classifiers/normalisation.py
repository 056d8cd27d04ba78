"""The first layer of a classifier: from pixels in [0, 1] to numbers that networks like."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from service.errors import InputError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of torchvision's weights


class PerChannel(nn.Module):
    """(x - mean) / std with constants for each channel. They are not weights and stay out of the state."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std


class PerImage(nn.Module):
    """(x - mean) / max(std, 1 / sqrt(n)) over the n values of each image, for pixels 0 to 255.

    Source: the released TensorFlow code of Madry et al. 2018 and Shafahi et al. 2019, which standardises pixels of that
    range; so images in [0, 1] are scaled to it first. This matters only for images that are nearly constant.
    """

    def forward(self, images: Tensor) -> Tensor:
        pixels = 255 * images
        count = images[0].numel()
        variance, mean = torch.var_mean(pixels, dim=(1, 2, 3), correction=0, keepdim=True)
        # clamped before the root, whose gradient at 0 is infinite
        return (pixels - mean) / variance.clamp(min=1 / count).sqrt()


def normalisation(
    channels: int, mean: Sequence[float] | None, std: Sequence[float] | None, per_image: bool
) -> nn.Module:
    """The layer for mean and std of each channel, for per-image standardisation, or for neither.

    InputError if both are asked for, or if mean and std do not fit the channels.
    """
    if per_image:
        if mean is not None or std is not None:
            raise InputError("mean and std are given, but per_image is on", hint="set per_image to false")
        return PerImage()
    if mean is None and std is None:
        return nn.Identity()
    if mean is None or std is None:
        raise InputError("mean and std: give both or neither")
    if len(mean) != channels or len(std) != channels:
        raise InputError(f"mean and std: {len(mean)} and {len(std)} values for {channels} channels")
    if not all(map(math.isfinite, (*mean, *std))) or min(std) <= 0:
        raise InputError(f"mean and std must be finite, and std above 0; they are {list(mean)} and {list(std)}")
    return PerChannel(mean, std)
