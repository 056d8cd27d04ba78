"""Bright discs, squares and triangles on a dark, noisy ground: made, so that there are as many as one likes."""

import numpy as np
import torch

from jobs.common.data.masks.base import Pairs, Source
from jobs.common.data.sets import Split

CLASSES = ("background", "disc", "square", "triangle")
PALETTE = ((0, 0, 0), (86, 180, 233), (230, 159, 0), (0, 158, 115))
COUNTS = {"train": 2000, "test": 400}
SEEDS = {"train": 0, "test": 1}
RADII = (9.0, 17.0)  # half of a side, in pixels of an image of 64


def shapes(split: Split, source: Source) -> Pairs:
    """2,000 images to train and 400 to test, of one or two shapes each, the later ones in front."""
    stream = np.random.default_rng(SEEDS[split])
    side, count = source.side, COUNTS[split]
    images = np.stack([_bytes(stream.normal(50, 20, (3, side, side))) for _ in range(count)])
    labels = np.zeros((count, side, side), np.uint8)
    rows, columns = np.mgrid[:side, :side] + 0.5
    for image, mask in zip(images, labels, strict=True):
        for _ in range(stream.integers(1, 3)):
            kind = int(stream.integers(1, len(CLASSES)))
            radius = stream.uniform(*RADII) * side / 64
            y, x = stream.uniform(radius, side - radius, 2)
            inside = covered(kind, (rows - y) / radius, (columns - x) / radius)
            colour = stream.uniform(120, 230, 3)[:, None]
            image[:, inside] = _bytes(colour + stream.normal(0, 15, (3, int(inside.sum()))))
            mask[inside] = kind
    return Pairs("shapes", CLASSES, PALETTE, torch.from_numpy(images), torch.from_numpy(labels))


def covered(kind: int, down: np.ndarray, across: np.ndarray) -> np.ndarray:
    """Where a shape is that fills the square from -1 to 1: bool, of the shape of `down` and `across`.

    kind: 1 disc, 2 square, 3 triangle with its tip at the top.
    """
    square: np.ndarray = np.maximum(abs(down), abs(across)) <= 1
    if kind == 1:
        disc: np.ndarray = down**2 + across**2 <= 1
        return disc
    triangle: np.ndarray = square & (2 * abs(across) <= 1 + down)
    return square if kind == 2 else triangle


def _bytes(values: np.ndarray) -> np.ndarray:
    pixels: np.ndarray = values.clip(0, 255).astype(np.uint8)
    return pixels
