"""Masks in files: label indices, as palette images or grey images, or colours that stand for classes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageColor, ImageOps, UnidentifiedImageError
from torch import Tensor

from jobs.common.data.image_files import MOST_PIXELS
from jobs.common.metrics.segmentation import IGNORE
from service.errors import FieldError, InputError

INDEXED = ("1", "L", "P", "LA", "PA", "I", "I;16", "I;16B", "RGB", "RGBA")  # modes of Pillow that can hold labels
FORMATS = ("PNG", "TIFF", "BMP", "GIF")  # those that lose nothing
SHOWN = 5  # labels or colours in a sentence


def read_mask(file: Path, classes: int, colours: Sequence[str] = ()) -> Tensor:
    """The labels in a mask: uint8 (height, width), in 0..classes-1 or IGNORE. What is transparent is IGNORE.

    colours: of each class in the mask as it is to be seen, be it grey, RGB or of a palette; none: it holds labels.
    InputError, naming the file: it cannot be read, or holds other labels or colours.
    """
    pixels, opaque = _pixels(file, as_seen=len(colours) > 0)
    labels = _of_colours(pixels, colours, opaque, file) if colours else _indices(pixels, file)
    return as_labels(np.where(opaque, labels, IGNORE), classes, f"mask {str(file)!r}")


def as_labels(labels: np.ndarray, classes: int, name: str) -> Tensor:
    """Whole numbers of any type as labels: uint8, in 0..classes-1 or IGNORE. InputError if there are others.

    name: of the mask, in errors.
    """
    if (wrong := labels[((labels < 0) | (labels >= classes)) & (labels != IGNORE)]).size:
        examples = ", ".join(map(str, np.unique(wrong)[:SHOWN]))
        raise InputError(
            f"{name} has {wrong.size} pixels of labels {examples}; they must be from 0 to "
            f"{classes - 1}, or {IGNORE} where a pixel does not count"
        )
    return torch.from_numpy(labels.astype(np.uint8))


def _pixels(file: Path, as_seen: bool) -> tuple[np.ndarray, np.ndarray]:
    """Integers (height, width) or (height, width, 3), and where they are not transparent: bool (height, width).

    as_seen: colours (height, width, 3), also of a grey image or one with a palette.
    """
    try:
        with Image.open(file, formats=FORMATS) as opened:
            if opened.width * opened.height > MOST_PIXELS:
                raise ValueError(
                    f"it must have at most {MOST_PIXELS:,} pixels; it has {opened.width * opened.height:,}"
                )
            if opened.mode == "F":
                raise ValueError("its pixels must be whole numbers; they are fractions")
            deep = opened.mode.startswith("I")
            if (deep and as_seen) or (not deep and ";16" in str(opened.tile)):
                raise ValueError("its colours must have 8 bits a channel; they have more")
            image: Image.Image = ImageOps.exif_transpose(opened)
            if as_seen:
                image = image.convert("RGBA")
            elif image.mode not in INDEXED:
                raise ValueError(f"it must be grey, RGB or of a palette; it is {image.mode}")
            if image.mode in ("LA", "PA", "RGBA"):
                *bands, alpha = image.split()
                image = Image.merge("RGB", bands) if len(bands) == 3 else bands[0]
                return np.array(image).astype(np.int64), np.array(alpha) > 0
            pixels = np.array(image).astype(np.int64)
    except UnidentifiedImageError as error:
        raise InputError(
            f"mask {str(file)!r} cannot be read: it is none of {', '.join(FORMATS)}",
            "formats that lose detail, such as JPEG, change labels",
        ) from error
    except Exception as error:  # damaged files make the decoders raise almost anything
        raise InputError(f"mask {str(file)!r} cannot be read: {error}") from error
    return pixels, np.ones(pixels.shape[:2], bool)


def _indices(pixels: np.ndarray, file: Path) -> np.ndarray:
    """A mask of indices. One in which red, green and blue are equal is one as well."""
    if pixels.ndim == 2:
        return pixels
    if (pixels == pixels[:, :, :1]).all():
        return pixels[:, :, 0]
    examples = ", ".join(_hex(colour) for colour in np.unique(pixels.reshape(-1, 3), axis=0)[:SHOWN])
    raise InputError(
        f"mask {str(file)!r} has colours ({examples}, …), not label indices",
        "say which class each colour stands for: colours: ['#000000', …], one for each of the classes, in their order",
    )


def _of_colours(pixels: np.ndarray, colours: Sequence[str], opaque: np.ndarray, file: Path) -> np.ndarray:
    codes = pixels @ np.array([1 << 16, 1 << 8, 1])
    labels = np.full(codes.shape, IGNORE)
    known = np.zeros(codes.shape, bool)
    for label, colour in enumerate(colours):
        red, green, blue = ImageColor.getrgb(colour)[:3]
        same = codes == (red << 16) + (green << 8) + blue
        labels[same], known = label, known | same
    if (strange := opaque & ~known).any():
        examples = ", ".join(_hex(colour) for colour in np.unique(pixels[strange], axis=0)[:SHOWN])
        raise InputError(
            f"mask {str(file)!r} has {int(strange.sum())} pixels of colours that no class has: {examples}",
            "borders that were smoothed have colours in between: draw masks without anti-aliasing",
        )
    return labels


def _hex(colour: Sequence[int]) -> str:
    return "#" + "".join(f"{int(part):02x}" for part in colour)


def check_colours(colours: Sequence[str], classes: int) -> None:
    """InputError unless there is a colour that Pillow knows for each class, each another one."""
    if not colours:
        return
    try:
        distinct = {ImageColor.getrgb(colour)[:3] for colour in colours}
    except ValueError as error:
        raise InputError(f"colours: {error}") from error
    if len(distinct) != classes or len(colours) != classes:
        raise FieldError("data.colours", f"be {classes} different ones, one for each class", colours)
