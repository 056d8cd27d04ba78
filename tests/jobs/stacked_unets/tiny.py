"""A set of few small images, quickly learnt: the left is dark and the right is bright, with a border between."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from jobs.common.data.masks.augmentation import JointAugmentationParams
from jobs.common.data.masks.base import Pairs, Source
from jobs.common.data.sets import Split
from jobs.common.metrics.segmentation import IGNORE
from jobs.common.training.optimizers import OptimizerParams
from jobs.common.training.schedules import CosineDecay
from jobs.stacked_unets.networks import segmenter
from jobs.stacked_unets.training import TrainingParams

TRAINING = TrainingParams(
    updates=6,
    batch=4,
    optimizer=OptimizerParams(kind="sgd", learning_rate=0.02, momentum=0.9, decay=CosineDecay()),
    head_rate=1.0,
    head_bias_rate=2.0,
    augmentation=JointAugmentationParams(scale=(0.8, 1.2), crop=32, rotate=10.0),
    report_every=2,
    held_out=2,
)


def halves(split: Split, source: Source | None = None) -> Pairs:
    """12 images of 32x32 to train, 5 to test."""
    count, stream = (12 if split == "train" else 5), torch.Generator().manual_seed(int(split == "test"))
    borders = torch.randint(8, 24, (count,), generator=stream)
    labels = (torch.arange(32) >= borders[:, None]).to(torch.uint8)[:, None].repeat(1, 32, 1)
    images = 60 + 120 * labels[:, None] + torch.randint(-30, 30, (count, 3, 32, 32), generator=stream)
    labels[torch.arange(32).expand(count, 32, 32) == borders[:, None, None]] = IGNORE
    return Pairs(
        "halves",
        ("dark", "bright", "missing"),
        ((0, 0, 0), (255, 255, 0), (255, 0, 255)),
        images.to(torch.uint8),
        labels,
    )


def network(seed: int = 0, name: str = "sunet_tiny") -> nn.Module:
    torch.manual_seed(seed)
    return segmenter(name, classes=3)


class Ladder(nn.Module):
    """An encoder and decoder of three halvings, joined at every size: for multiples of 8 alone, as most U-Nets are."""

    def __init__(self, classes: int, channels: int, width: int = 8) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, width, 3, padding=1)
        self.down = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(3))
        self.up = nn.ModuleList(nn.Conv2d(2 * width, width, 3, padding=1) for _ in range(3))
        self.last = nn.Conv2d(width, classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        sizes = [self.first(images)]
        for layer in self.down:
            sizes.append(functional.max_pool2d(layer(sizes[-1]).relu(), 2))
        features = sizes.pop()
        for layer in self.up:
            larger = functional.interpolate(features, scale_factor=2.0, mode="nearest")
            features = layer(torch.cat([larger, sizes.pop()], dim=1)).relu()
        logits: Tensor = self.last(features)
        return logits


def fields(split: Split, source: Source) -> Pairs:
    """As halves, but of 27x30 pixels, which are multiples of no power of 2 that matters."""
    whole = halves(split)
    return Pairs(whole.name, whole.classes, whole.palette, whole._images[:, :, :27, :30], whole._labels[:, :27, :30])
