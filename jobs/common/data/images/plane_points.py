"""Points of the plane in two classes that no straight line tells apart: spirals, a swiss roll, concentric circles.

A point is an image of one pixel, whose two channels are its coordinates, so that whatever takes images takes points.
A coordinate x in [-frame, frame] is the value (x / frame + 1) / 2 in [0, 1]. A classifier whose normalisation has the
mean 1/2 and the standard deviation 1 / (2 frame) sees the coordinates themselves.

Source: Huang et al. 2020, "Understanding Generalization through Visualizations", figures 1, 3 and 8, released code.
"""

import hashlib
import math

import torch
from torch import Tensor

from jobs.common.data.batches import permutation
from jobs.common.data.images.base import ImageSet, Source
from jobs.common.data.sets import Split

SHAPE = (2, 1, 1)
SPIRAL, SPIRAL_TRAIN = 200, 266  # points of a class; those of both that are to train with
ROLL: dict[Split, int] = {"train": 2100, "test": 500}  # points of a class
CIRCLE_TEST = 200  # points of a class to test with
INNER, OUTER, GAP = 0.4, 0.95, 0.001
SEED = 1237
SEEDS: dict[Split, int] = {"train": SEED, "test": SEED + 1}


class PlanePoints:
    """A set of points. frame: the bound of each coordinate's absolute value."""

    def __init__(self, name: str, classes: tuple[str, str], points: Tensor, labels: Tensor, frame: float) -> None:
        """points: float64 (n, 2) in [-frame, frame]. labels: int64 (n,)."""
        self.name, self.classes, self.labels, self.frame = name, classes, labels, frame
        self.shape: tuple[int, int, int] = SHAPE
        self.resize: int | None = None
        self._values = ((points / frame + 1) / 2).float().view(-1, *SHAPE)
        digest = hashlib.sha256(f"{name} {frame}".encode())
        digest.update(self._values.numpy().data)
        digest.update(labels.numpy().data)
        self.digest = digest.hexdigest()

    def __len__(self) -> int:
        return len(self.labels)

    def images(self, indices: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self._values[indices]


def frame_of(images: ImageSet) -> float:
    """The bound of the coordinates of points; of points of the user's own 1/2, so that their frame has the side 1."""
    while hasattr(images, "whole"):
        images = images.whole
    return float(getattr(images, "frame", 0.5))


def coordinates(images: ImageSet) -> Tensor:
    """All points of a set of points, or of a part of one: float64 (n, 2), from minus the frame to the frame."""
    values = images.images(torch.arange(len(images))).double().flatten(1)
    return (2 * values - 1) * frame_of(images)


def spirals(split: Split, source: Source) -> PlanePoints:
    """Two spirals of one and a half turns, 200 points each without noise: 266 to train and 134 to test."""
    angle = torch.arange(1, SPIRAL + 1, dtype=torch.float64) * 1.5 * 2 * math.pi / SPIRAL  # at 0 both are one
    arm = 5 * angle.sqrt()[:, None] * _on_circle(angle)
    order = permutation(2 * SPIRAL, SEED)
    rows = order[:SPIRAL_TRAIN] if split == "train" else order[SPIRAL_TRAIN:]
    labels = torch.arange(2).repeat_interleave(SPIRAL)
    return PlanePoints("spirals", ("first", "second"), torch.cat([-arm, arm])[rows], labels[rows], 16)


def swiss_roll(split: Split, source: Source) -> PlanePoints:
    """Two rolled-up bands with noise, one being the other turned by 180 degrees: 4,200 to train and 1,000 to test."""
    count, stream = ROLL[split], torch.Generator().manual_seed(SEEDS[split])
    angle = torch.rand(count, dtype=torch.float64, generator=stream).sqrt() * 600 * 2 * math.pi / 360
    noise = 0.5 * torch.randn(count, 2, dtype=torch.float64, generator=stream)
    band = 1.5 * angle[:, None] * _on_circle(angle) * torch.tensor([-1.0, 1.0]) + noise
    labels = torch.arange(2).repeat_interleave(count)
    return PlanePoints("swiss_roll", ("first", "second"), torch.cat([band, -band]), labels, 18)


def circles(split: Split, source: Source) -> PlanePoints:
    """Circles of radius 0.4 and 0.95, 40 and 80 points to train: the middle of the gap is as far as one can stay."""
    return _circles("circles", split, between=0)


def circles_gap(split: Split, source: Source) -> PlanePoints:
    """The same, and 10 points of the outer class at a distance of 0.001 from the inner circle, between its points."""
    return _circles("circles_gap", split, between=10)


def _circles(name: str, split: Split, between: int) -> PlanePoints:
    """between: points of the outer class beside the inner circle, to train with alone."""
    if split == "test":
        stream = torch.Generator().manual_seed(SEED)
        angles = 2 * math.pi * torch.rand(2, CIRCLE_TEST, dtype=torch.float64, generator=stream)
        parts = [INNER * _on_circle(angles[0]), OUTER * _on_circle(angles[1])]
    else:
        parts = [INNER * _on_circle(_turn(40)), OUTER * _on_circle(_turn(80))]
        parts += [(INNER + GAP) * _on_circle(_turn(between) + math.pi / 40)] if between else []
    labels = torch.cat([torch.full((len(part),), int(place > 0)) for place, part in enumerate(parts)])
    return PlanePoints(name, ("inner", "outer"), torch.cat(parts), labels, 1)


def _turn(count: int) -> Tensor:
    """Angles that divide a turn evenly: float64 (count,)."""
    return torch.arange(count, dtype=torch.float64) * 2 * math.pi / count


def _on_circle(angles: Tensor) -> Tensor:
    """Points of the unit circle: (n,) -> (n, 2)."""
    return torch.stack([angles.cos(), angles.sin()], dim=1)
