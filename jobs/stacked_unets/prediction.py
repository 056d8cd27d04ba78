"""What a network says of a whole image: a class for every pixel, from tiles, from several scales, and from its mirror.

Source: the released code of Shah et al. 2018: the logits of an image and of its mirror are added, the probabilities
of tiles and of scales are averaged. Tiles are blended there with equal weights.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from jobs.common.models.inference import Inference
from jobs.common.params import ONCE, StudyParams
from jobs.common.training.optimizers import device_of
from jobs.stacked_unets.padding import Padded
from jobs.stacked_unets.tiles import Score, Tiling, strips


class PredictionParams(StudyParams):
    """How an image is segmented."""

    scales: Annotated[tuple[Annotated[float, Field(gt=0, le=16)], ...], ONCE] = Field(
        (1.0,), min_length=1, max_length=16, description="sizes that an image is brought to, probabilities averaged"
    )
    base: int | None = Field(
        None,
        ge=16,
        le=8192,
        description="pixels of the shorter side that a scale of 1 stands for; none: that of the image itself",
    )
    flip: bool = Field(False, description="add the logits of the mirrored image")
    tiling: Tiling = Field(Tiling(), description="how images larger than a tile are cut")


@dataclass(frozen=True)
class Segmentation:
    """A class for every pixel."""

    labels: Tensor
    """uint8 (height, width), on the CPU"""
    confidence: Tensor
    """float32 (height, width), the probability of that class, on the CPU"""


def prepared(network: nn.Module) -> nn.Module:
    """A network that predicts the same within float rounding: on a CPU, after the first large image, faster.

    network: in evaluation mode, with weights that do not change any more.
    """
    if isinstance(network, Padded):
        return Padded(prepared(network.network), network.multiple)
    return Inference(network) if device_of(network).type == "cpu" else network


def predict(network: nn.Module, image: Tensor, params: PredictionParams) -> Segmentation:
    """Segment one image of any size; the network is in evaluation mode.

    image: (channels, height, width) in [0, 1]. At a single scale, which is that of the image, no more scores are held
    than those of one row of tiles.
    """
    device = device_of(network)
    score = probabilities(network, params.flip)
    with torch.no_grad():
        sizes = [size_at(image.shape[-2:], scale, params.base) for scale in params.scales]
        if sizes == [tuple(image.shape[-2:])]:
            parts = [_best(strip) for strip in strips(score, image.to(device), params.tiling, network)]
        else:
            parts = [_best(_over_scales(network, score, image.to(device), sizes, params.tiling))]
    return Segmentation(*map(torch.cat, zip(*parts, strict=True)))


def _best(scores: Tensor) -> tuple[Tensor, Tensor]:
    """The likeliest class of each pixel as uint8, and its probability. scores: (classes, rows, width)."""
    confidence, labels = scores.max(dim=0)
    return labels.to("cpu", torch.uint8), confidence.float().cpu()


def probabilities(network: nn.Module, flip: bool = False) -> Score:
    """From images to probabilities. flip: of the sum of the logits of each image and of its mirror."""

    def score(images: Tensor) -> Tensor:
        logits: Tensor = network(images)
        if flip:
            logits = logits + network(images.flip(3)).flip(3)
        return logits.softmax(1)

    return score


def size_at(size: tuple[int, int] | torch.Size, scale: float, base: int | None) -> tuple[int, int]:
    """Height and width at a scale, at least a pixel each."""
    height, width = size
    factor = scale if base is None else scale * base / min(height, width)
    return max(round(height * factor), 1), max(round(width * factor), 1)


def _over_scales(
    network: nn.Module, score: Score, image: Tensor, sizes: list[tuple[int, int]], tiling: Tiling
) -> Tensor:
    """The mean of the probabilities over scales, at the size of the image: (classes, height, width)."""
    total: Tensor | None = None
    for size in sizes:
        resized = functional.interpolate(image[None], size, mode="bilinear", align_corners=False, antialias=True)[0]
        scores = torch.cat(list(strips(score, resized, tiling, network)), dim=1)[None]
        scores = functional.interpolate(scores, image.shape[-2:], mode="bilinear", align_corners=False)[0]
        total = scores if total is None else total.add_(scores)
    assert total is not None
    return total / len(sizes)
