"""Image files of strangers: decoded within bounds, as they are to be seen, and brought to the size of a network."""

import math
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from service.errors import InputError

FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP")
TIFF_BITS, TIFF_PHOTOMETRIC = 258, 262  # tags
MOST_PIXELS = 64_000_000  # of one image: more is a decompression bomb
HIDDEN = ("thumbs.db", "desktop.ini", "__macosx", "@eadir")  # what systems leave beside images, besides .names
LONGEST = 50  # times the shorter side: a longer image would be a bomb when its shorter side is resized


def decode(
    file: Path | BinaryIO, name: str, formats: tuple[str, ...] = FORMATS, most_pixels: int = MOST_PIXELS
) -> Image.Image:
    """An image as it is to be seen: RGB, turned as its EXIF data say, on white where it is transparent.

    Of more than 8 bits a channel the upper 8 are seen. Fractions and whole numbers of 32 bits are refused: nobody says
    which of them are black and white. Of an animation the first frame is taken. name: of the image, in errors.
    formats: what Pillow calls those that are tried.
    InputError, naming the image, if it cannot be read or has too many pixels; these are counted before it is decoded.
    """
    try:
        with Image.open(file, formats=formats) as image:
            if math.prod(image.size) > most_pixels:
                raise ValueError(f"it must have at most {most_pixels:,} pixels; it has {math.prod(image.size):,}")
            if max(image.size) > LONGEST * min(image.size):
                size = f"{image.width}x{image.height}"
                raise ValueError(f"it must be at most {LONGEST} times as long as wide; it is {size}")
            bits = _grey_bits(image)  # before the image is turned, which forgets the format
            return _rgb(ImageOps.exif_transpose(image), bits)
    except UnidentifiedImageError as error:
        raise InputError(f"{name} cannot be read: it is none of {', '.join(formats)}") from error
    except Exception as error:  # damaged files make the decoders raise almost anything
        raise InputError(f"{name} cannot be read: {error}") from error


def hidden(name: str) -> bool:
    """Whether a file or folder is one that its user does not see, such as .ipynb_checkpoints, ._1.png and Thumbs.db."""
    return name.startswith(".") or name.lower() in HIDDEN


def centre(image: Image.Image, height: int, width: int, resize: int | None = None) -> Image.Image:
    """The centre of an image: resized so that it covers height and width, then cut out.

    resize: pixels that the shorter side is brought to before a square is cut out, and any other in proportion; None: as
    few as cover it. Sides are rounded as torchvision's Resize and CenterCrop do.
    """
    shorter = min(image.size)
    margin = 1.0 if resize is None else resize / min(height, width)
    side = round(max(margin * height / image.height, margin * width / image.width) * shorter)
    down, across = (side if length == shorter else int(side * length / shorter) for length in image.size[::-1])
    down, across = max(down, height), max(across, width)
    top, left = round((down - height) / 2), round((across - width) / 2)
    return image.resize((across, down), Image.Resampling.BILINEAR).crop((left, top, left + width, top + height))


def _grey_bits(image: Image.Image) -> int:
    """Bits of a grey pixel, as the file has them. ValueError if its values have no agreed range."""
    if image.mode == "F" or (image.mode == "I" and image.format != "PPM"):  # Pillow brings those of PPM to 16 bits
        kind = "fractions" if image.mode == "F" else "signed or of 32 bits"
        raise ValueError(f"its pixels are {kind}, and nobody says which are black and white; save it as 8 bits")
    if not image.mode.startswith("I"):
        return 8
    tags = getattr(image, "tag_v2", {})
    if tags.get(TIFF_PHOTOMETRIC, 1) == 0:  # Pillow inverts such pixels of 8 bits alone
        raise ValueError("its 16 bits of grey go from white to black; save it with black as 0")
    return int(tags.get(TIFF_BITS, (16,))[0])


def _rgb(image: Image.Image, bits: int) -> Image.Image:
    """bits: of a grey pixel. `convert` would clip those of more than 8."""
    if bits > 8:
        return Image.fromarray((np.array(image) >> (bits - 8)).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")
