"""Pictograms pasted on parts of photographs: as many classes, occlusions and exact masks as one likes.

The pictograms are the glyphs of Google's Noto Color Emoji font, which `make data` fetches; their class is that of the
range of Unicode that they are in. The photographs come with scikit-image and scikit-learn. No pictogram is in both
splits, and no pixel of a photograph.
"""

import math
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from jobs.common.data.images.photo_patches import COLUMNS, PHOTOGRAPHS, photograph
from jobs.common.data.masks.base import Pairs, Source, palette
from jobs.common.data.sets import Split
from jobs.common.metrics.segmentation import IGNORE
from service.errors import InputError

RANGES = {
    "animal": (0x1F400, 0x1F43F),
    "food": (0x1F345, 0x1F37F),
    "vehicle": (0x1F680, 0x1F6A4),
    "face": (0x1F600, 0x1F637),
}
"""Unicode, code charts "Miscellaneous Symbols and Pictographs", "Emoticons" and "Transport and Map Symbols\""""
CLASSES = ("background", *RANGES)
FONT = "usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"
SIZE = 109  # pixels: the one size that the font has bitmaps of
COUNTS = {"train": 2000, "test": 300}
SEEDS = {"train": 0, "test": 1}
EVERY = 5  # each fifth glyph is for testing
SIDES = (0.35, 0.8)  # of a pictogram, as shares of the image's
MOST = 3  # pictograms in an image


def composites(split: Split, source: Source) -> Pairs:
    """2,000 images to train and 300 to test. Pixels that a pictogram covers in part are ignored."""
    stream = np.random.default_rng(SEEDS[split])
    glyphs = _glyphs(source.folder / FONT)
    glyphs = {
        kind: [glyph for index, glyph in enumerate(each) if (index % EVERY == 0) == (split == "test")]
        for kind, each in glyphs.items()
    }
    photos = [_half(photograph(name), *COLUMNS[split]) for name in PHOTOGRAPHS]
    pairs = [_composite(glyphs, photos, source.side, stream) for _ in range(COUNTS[split])]
    images, labels = (torch.from_numpy(np.stack(each)) for each in zip(*pairs, strict=True))
    return Pairs("composites", CLASSES, palette(len(CLASSES)), images.permute(0, 3, 1, 2), labels)


def paste(image: np.ndarray, labels: np.ndarray, glyph: Image.Image, label: int, top: int, left: int) -> None:
    """Put a pictogram in front of what is there, in place; it may reach over the borders.

    image: uint8 (height, width, 3). labels: uint8 (height, width): where the glyph is opaque they are `label`, where
    it is half transparent IGNORE.
    """
    pixels = np.array(glyph)
    height, width = labels.shape
    rows = slice(max(top, 0), min(top + len(pixels), height))
    columns = slice(max(left, 0), min(left + pixels.shape[1], width))
    visible = pixels[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    alpha = visible[:, :, 3:] / 255
    image[rows, columns] = (alpha * visible[:, :, :3] + (1 - alpha) * image[rows, columns]).round()
    under = labels[rows, columns]
    labels[rows, columns] = np.where(alpha[:, :, 0] > 0.9, label, np.where(alpha[:, :, 0] > 0.1, IGNORE, under))


def _composite(
    glyphs: dict[str, list[Image.Image]], photos: list[np.ndarray], side: int, stream: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    photo = photos[stream.integers(len(photos))]
    part = int(min(side * stream.uniform(1, 3), *photo.shape[:2]))
    top, left = (int(stream.integers(0, length - part + 1)) for length in photo.shape[:2])
    ground = Image.fromarray(photo[top : top + part, left : left + part]).resize((side, side), Image.Resampling.BOX)
    image, labels = np.array(ground), np.zeros((side, side), np.uint8)
    for _ in range(stream.integers(1, MOST + 1)):
        label = int(stream.integers(1, len(CLASSES)))
        kind = glyphs[CLASSES[label]]
        glyph = kind[stream.integers(len(kind))]
        length = round(side * stream.uniform(*SIDES))
        glyph = glyph.rotate(stream.uniform(-20, 20), Image.Resampling.BICUBIC).resize((length, length))
        down, across = (int(stream.integers(-length // 4, side - 3 * length // 4)) for _ in range(2))
        paste(image, labels, glyph, label, down, across)
    return image, labels


def _half(photo: Tensor, left: float, right: float) -> np.ndarray:
    """The columns between two shares of the width: uint8 (height, width, 3)."""
    width = photo.shape[2]
    columns: np.ndarray = photo[:, :, math.ceil(left * width) : math.floor(right * width)].permute(1, 2, 0).numpy()
    return columns


@cache  # both splits are made of the same glyphs
def _glyphs(file: Path) -> dict[str, list[Image.Image]]:
    """The pictograms of each class, RGBA, square."""
    if not file.is_file():
        raise InputError(
            f"composites needs the font {str(file)!r}", hint="`make data` fetches it (the Debian package of Noto emoji)"
        )
    try:
        font = ImageFont.truetype(str(file), SIZE)
        return {
            kind: [glyph for code in range(first, last + 1) if (glyph := _glyph(font, chr(code))) is not None]
            for kind, (first, last) in RANGES.items()
        }
    except OSError as error:
        raise InputError(f"composites: {str(file)!r} cannot be read: {error}") from error


def _glyph(font: ImageFont.FreeTypeFont, character: str) -> Image.Image | None:
    """A pictogram, cut to what is drawn and made square; None if the font does not have it in colour."""
    canvas = Image.new("RGBA", (2 * SIZE, 2 * SIZE))
    ImageDraw.Draw(canvas).text((SIZE // 2, SIZE // 2), character, font=font, embedded_color=True)
    box = canvas.getbbox()
    if box is None:
        return None
    cut = canvas.crop(box)
    square = Image.new("RGBA", (max(cut.size),) * 2)
    square.paste(cut, ((square.width - cut.width) // 2, (square.height - cut.height) // 2))
    return square
