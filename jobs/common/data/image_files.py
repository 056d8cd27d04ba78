"""Image files of strangers: decoded within bounds, as they are to be seen, and brought to the size of a network."""

import math
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from service.errors import InputError

FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP")
MOST_PIXELS = 64_000_000  # of one image: more is a decompression bomb
HIDDEN = ("thumbs.db", "desktop.ini", "__macosx", "@eadir")  # what systems leave beside images, besides .names
LONGEST = 50  # times the shorter side: a longer image would be a bomb when its shorter side is resized


def decode(
    file: Path | BinaryIO, name: str, formats: tuple[str, ...] = FORMATS, most_pixels: int = MOST_PIXELS
) -> Image.Image:
    """An image as it is to be seen: RGB, turned as its EXIF data say, on white where it is transparent.

    Of an animation the first frame. name: of the image, in errors. formats: what Pillow calls those that are tried.
    InputError, naming the image, if it cannot be read or has too many pixels; these are counted before it is decoded.
    """
    try:
        with Image.open(file, formats=formats) as image:
            if math.prod(image.size) > most_pixels:
                raise ValueError(f"it must have at most {most_pixels:,} pixels; it has {math.prod(image.size):,}")
            if max(image.size) > LONGEST * min(image.size):
                size = f"{image.width}x{image.height}"
                raise ValueError(f"it must be at most {LONGEST} times as long as wide; it is {size}")
            return _rgb(ImageOps.exif_transpose(image))
    except UnidentifiedImageError as error:
        raise InputError(f"{name} cannot be read: it is none of {', '.join(formats)}") from error
    except Exception as error:  # damaged files make the decoders raise almost anything
        raise InputError(f"{name} cannot be read: {error}") from error


def hidden(name: str) -> bool:
    """Whether a file or folder is one that its user does not see, such as .ipynb_checkpoints, ._1.png and Thumbs.db."""
    return name.startswith(".") or name.lower() in HIDDEN


def centre(image: Image.Image, height: int, width: int, margin: float = 1.0) -> Image.Image:
    """The centre of an image: resized so that it covers `margin` times the size that is wanted, then cut out.

    Sides are rounded as torchvision's Resize and CenterCrop do.
    """
    shorter = min(image.size)
    side = round(max(margin * height / image.height, margin * width / image.width) * shorter)
    down, across = (side if length == shorter else int(side * length / shorter) for length in image.size[::-1])
    down, across = max(down, height), max(across, width)
    top, left = round((down - height) / 2), round((across - width) / 2)
    return image.resize((across, down), Image.Resampling.BILINEAR).crop((left, top, left + width, top + height))


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits of grey, which `convert` would clip to 8
        return Image.fromarray((np.array(image) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")
