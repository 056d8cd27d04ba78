"""Ten classes of small colour images cut out of ten photographs that come with scikit-image and scikit-learn.

A class is a photograph; an image is a square part of it with a side of 32 to 128 pixels, reduced to 32x32. Parts for
training come from the left of each photograph and parts for testing from the right, with a gap between them, so that
no pixel is in both.
"""

import math
from functools import cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from jobs.common.data.images.base import Pixels, Source
from jobs.common.data.packaged import packaged
from jobs.common.data.sets import Split

PHOTOGRAPHS = {
    "astronaut": "astronaut.png",
    "chelsea": "chelsea.png",
    "coffee": "coffee.png",
    "rocket": "rocket.jpg",
    "retina": "retina.jpg",
    "hubble_deep_field": "hubble_deep_field.jpg",
    "ihc": "ihc.png",
    "motorcycle": "motorcycle_left.png",
    "china": "china.jpg",
    "flower": "flower.jpg",
}
FROM_SCIKIT_LEARN = ("china", "flower")
SIDE, LARGEST = 32, 4  # pixels of an image; how many of these the side of a part has at most
COLUMNS = {"train": (0.0, 0.65), "test": (0.68, 1.0)}  # of a photograph, as shares of its width
EACH = {"train": 1000, "test": 200}  # parts of every photograph
SEEDS = {"train": 0, "test": 1}


def photo_patches(split: Split, source: Source) -> Pixels:
    """10,000 colour images of 32x32 to train and 2,000 to test, classes in turn."""
    labels = torch.arange(len(PHOTOGRAPHS)).repeat(EACH[split])
    return Pixels("photo_patches", tuple(PHOTOGRAPHS), _pixels(split), labels)


@cache  # cutting takes a second
def _pixels(split: Split) -> Tensor:
    """All parts, classes in turn: uint8 (n, 3, 32, 32)."""
    stream = np.random.default_rng(SEEDS[split])
    parts = [cut(photograph(name), *COLUMNS[split], EACH[split], stream) for name in PHOTOGRAPHS]
    return torch.stack(parts, dim=1).flatten(0, 1)  # (each, classes, …) -> (n, 3, 32, 32)


def photograph(name: str) -> Tensor:
    """A photograph: uint8 (3, height, width). InputError names the package that is missing."""
    if name in FROM_SCIKIT_LEARN:
        package, module, folder = "scikit-learn", "sklearn", "datasets/images"
    else:
        package, module, folder = "scikit-image", "skimage", "data"
    with Image.open(packaged(package, module, f"{folder}/{PHOTOGRAPHS[name]}", "photo_patches")) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def cut(photo: Tensor, left: float, right: float, count: int, stream: np.random.Generator) -> Tensor:
    """Square parts between two columns, at random places and of random sides from 32 to 128, reduced to 32x32.

    photo: uint8 (3, height, width). left, right: shares of the width. Returns uint8 (count, 3, 32, 32).
    """
    width = photo.shape[2]
    photo = photo[:, :, math.ceil(left * width) : math.floor(right * width)]
    height, width = photo.shape[1:]
    sides = np.minimum(SIDE * stream.uniform(1, LARGEST, count), min(height, width))
    rows, columns = stream.random(count) * (height - sides), stream.random(count) * (width - sides)
    return reduce(photo, torch.from_numpy(rows), torch.from_numpy(columns), torch.from_numpy(sides))


def reduce(photo: Tensor, rows: Tensor, columns: Tensor, sides: Tensor) -> Tensor:
    """Square parts of a photograph reduced to 32x32: each pixel is the mean over the area that it covers.

    photo: uint8 (3, height, width). rows, columns, sides: float64 (count,), the top, left and side of each part in
    pixels, fractions included. Returns uint8 (count, 3, 32, 32).
    """
    height, width = photo.shape[1:]
    # the sum over the rectangle from the top left corner to any point is linear between pixel corners in each
    # coordinate, so the mean over a rectangle is a difference of four values interpolated in this table
    table = functional.pad(photo.double().cumsum(1).cumsum(2), (1, 0, 1, 0))  # (3, height + 1, width + 1)
    edges = torch.linspace(0, 1, SIDE + 1, dtype=torch.float64) * sides[:, None]  # (count, 33)
    y, x = 2 * (rows[:, None] + edges) / height - 1, 2 * (columns[:, None] + edges) / width - 1
    shape = (len(sides), SIDE + 1, SIDE + 1)
    grid = torch.stack([x[:, None, :].expand(shape), y[:, :, None].expand(shape)], dim=-1)  # (count, 33, 33, 2)
    sums = functional.grid_sample(table[None], grid.flatten(0, 1)[None], align_corners=True, padding_mode="border")
    sums = sums.view(3, *shape)
    means: Tensor = sums.diff(dim=2).diff(dim=3) / (sides / SIDE).square()[:, None, None]
    return means.round().clamp(0, 255).to(torch.uint8).transpose(0, 1).contiguous()
