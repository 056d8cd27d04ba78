"""Poisons as files: a PNG for each image, and an index that says what each is made of. Nothing is lost on the way.

Poisons that are written, read back and trained on must be the ones that were crafted: pixels are brought to 8 bits
once, by rounding, and what is written is read back and compared. Files of strangers are read within bounds, and only as
what they say they are: plain 8-bit grey or RGB, of one size, with the SHA-256 of the index.
"""

import hashlib
import io
import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from pydantic import Field, ValidationError
from torch import Tensor

from jobs.common.params import StudyParams
from service.errors import InputError, TooLargeError

INDEX = "poisons.json"
LARGEST_INDEX = 64 << 20  # bytes
LARGEST_SIDE = 4096  # pixels
MOST_POISONS = 100_000
MOST_VALUES = 1 << 31  # of all images together
SIGNATURE = b"\x89PNG\r\n\x1a\n"
NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,200}\.png")
COLOURS = {1: 0, 3: 2}  # by channels: the colour type in a PNG's header
MODES = {1: "L", 3: "RGB"}  # and what Pillow calls it


class Entry(StudyParams):
    """One image file."""

    file: str = Field(description="its name beside the index")
    sha256: str = Field(pattern="^[0-9a-f]{64}$", description="of the file")
    label: int = Field(ge=0, description="the class that it is trained as; of the target its own")
    base: int | None = Field(ge=0, description="place of the image that it was made of in the data set; none: not made")


class Index(StudyParams):
    """What a folder of poisons holds."""

    format: Literal["assay poisons 1"] = "assay poisons 1"
    scale: Literal[255] = Field(255, description="the value of white; images are pixels divided by it")
    channels: Literal[1, 3]
    height: int = Field(ge=1, le=LARGEST_SIDE)
    width: int = Field(ge=1, le=LARGEST_SIDE)
    data: str = Field(max_length=200, description="data set that the places of bases and target are in")
    base_split: Literal["train", "test"] = Field("test", description="split that the bases are of; the target: test")
    target_index: int = Field(ge=0, description="place of the target in the data set")
    target: Entry
    poisons: tuple[Entry, ...] = Field(min_length=1, max_length=MOST_POISONS)


@dataclass(frozen=True)
class PoisonSet:
    """A target and its poisons, as victims are trained on them."""

    images: Tensor
    """uint8 (n, channels, height, width)"""
    labels: tuple[int, ...]
    """(n,)"""
    bases: tuple[int, ...]
    """(n,), places of the bases in the data set"""
    target: Tensor
    """uint8 (channels, height, width)"""
    target_index: int
    target_label: int
    data: str
    """name of the data set"""
    base_split: Literal["train", "test"] = "test"
    """that the bases are of; the target is of the test split"""


def to_8_bits(images: Tensor) -> Tensor:
    """Images in [0, 1] as uint8, rounded to the nearest level, halves to the even one.

    InputError if they are not finite or outside: images in 0..255, or normalised ones, are not taken for others.
    """
    if not images.is_floating_point() or not bool(((images >= 0) & (images <= 1)).all()):
        raise InputError(
            f"images must be floats in [0, 1]; they are {images.dtype} from {images.min()} to {images.max()}"
        )
    return (255 * images).round().to(torch.uint8)


def encode(poisons: PoisonSet) -> dict[str, bytes]:
    """The files of a set by name: PNGs, and the index after them.

    InputError if images are not uint8 grey or RGB of one size, or the counts of images, labels and bases differ.
    """
    images, target = poisons.images, poisons.target
    if images.ndim != 4 or images.dtype != torch.uint8 or target.dtype != torch.uint8 or len(images) < 1:
        raise InputError(
            f"poisons must be uint8 (n, channels, height, width); they are {images.dtype} {tuple(images.shape)}"
        )
    if target.shape != images.shape[1:] or images.shape[1] not in MODES:
        shapes = f"they are {tuple(images.shape)} and {tuple(target.shape)}"
        raise InputError(f"poisons and target must be grey or RGB images of one size; {shapes}")
    if not len(images) == len(poisons.labels) == len(poisons.bases):
        counts = f"they are {len(poisons.labels)} and {len(poisons.bases)}"
        raise InputError(f"labels and bases must be {len(images)} each, one for each poison; {counts}")
    files: dict[str, bytes] = {}

    def kept(name: str, image: Tensor, label: int, base: int | None) -> Entry:
        files[name] = _png(image)
        return Entry(file=name, sha256=hashlib.sha256(files[name]).hexdigest(), label=label, base=base)

    channels, height, width = target.shape
    try:
        index = Index.model_validate(
            {
                "channels": channels,
                "height": height,
                "width": width,
                "data": poisons.data,
                "base_split": poisons.base_split,
                "target_index": poisons.target_index,
                "target": kept("target.png", target, poisons.target_label, None),
                "poisons": tuple(
                    kept(f"poison_{number:05}.png", image, label, base)
                    for number, (image, label, base) in enumerate(
                        zip(images, poisons.labels, poisons.bases, strict=True)
                    )
                ),
            }
        )
    except ValidationError as error:
        raise _said(error, "these poisons") from error
    files[INDEX] = index.model_dump_json(indent=1).encode()
    return files


def decode(index: bytes, content_of: Callable[[str], bytes], where: str = INDEX) -> PoisonSet:
    """A set of poisons from its index and from what reads the files beside it. where: the index, in errors.

    InputError if the index or an image is anything but what `encode` makes, or if a file has changed.
    """
    if len(index) > LARGEST_INDEX:
        raise TooLargeError(f"{where} must have at most {LARGEST_INDEX:,} bytes; it has {len(index):,}")
    try:
        said = Index.model_validate_json(index)
    except ValidationError as error:
        raise _said(error, where) from error
    entries = (said.target, *said.poisons)
    if (values := len(entries) * said.channels * said.height * said.width) > MOST_VALUES:
        raise TooLargeError(f"{where} must hold at most {MOST_VALUES:,} values; it holds about {values:,}")
    names = [entry.file for entry in entries]
    for name in names:
        if not NAME.fullmatch(name) or ".." in name:
            raise InputError(f"a file in {where} must be the plain name of a .png beside it; it is {name[:200]!r}")
    if len(set(names)) < len(names):
        raise InputError(f"{where} must name each file once; it names {max(names, key=names.count)!r} more often")
    if missing := [number for number, entry in enumerate(said.poisons) if entry.base is None]:
        raise InputError(f"poisons.{missing[0]}.base in {where} must be the image that it was made of; it is empty")
    images = torch.empty(len(entries), said.channels, said.height, said.width, dtype=torch.uint8)
    for row, entry in enumerate(entries):
        content = content_of(entry.file)
        if hashlib.sha256(content).hexdigest() != entry.sha256:
            raise InputError(f"{entry.file} is not the file that {where} was written with: its SHA-256 differs")
        images[row] = _pixels(content, entry.file, said)
    return PoisonSet(
        images=images[1:],
        labels=tuple(entry.label for entry in said.poisons),
        bases=tuple(entry.base for entry in said.poisons if entry.base is not None),
        target=images[0],
        target_index=said.target_index,
        target_label=said.target.label,
        data=said.data,
        base_split=said.base_split,
    )


def write(poisons: PoisonSet, keep: Callable[[str, bytes], None], content_of: Callable[[str], bytes]) -> None:
    """Write a set, the index last, and read it back. keep: writes a file. content_of: reads it.

    RuntimeError if what is read is not what was written.
    """
    for name, content in encode(poisons).items():
        keep(name, content)
    back = decode(content_of(INDEX), content_of)
    if not torch.equal(back.images, poisons.images.cpu()) or not torch.equal(back.target, poisons.target.cpu()):
        raise RuntimeError("the files do not hold the pixels that were written")


def read(folder: Path) -> PoisonSet:
    """A set of poisons in a folder. InputError if a file is missing, changed, a link, or not what it should be."""
    return decode(_content(folder / INDEX, LARGEST_INDEX), lambda name: _content(folder / name), str(folder / INDEX))


def _content(file: Path, most: int = 4 * LARGEST_SIDE**2) -> bytes:
    """What is in a file. Links are not followed, as they may lead anywhere, and only plain files are opened."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise InputError(f"{str(file)!r} must be a plain file; it is something else")
            with open(descriptor, "rb", closefd=False) as opened:
                content = opened.read(most + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise InputError(f"{str(file)!r} cannot be read: {error.strerror}") from error
    if len(content) > most:
        raise TooLargeError(f"{str(file)!r} must have at most {most:,} bytes; it has more")
    return content


def _png(image: Tensor) -> bytes:
    """uint8 (channels, height, width) -> PNG."""
    pixels: np.ndarray = image.permute(1, 2, 0).contiguous().cpu().numpy()
    file = io.BytesIO()
    Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels).save(file, "PNG")
    return file.getvalue()


def _pixels(content: bytes, name: str, index: Index) -> Tensor:
    """PNG -> uint8 (channels, height, width). The header is looked at before anything is decoded.

    Pillow would take 16 bits for 8, and a palette for colours: what a file holds must be what the index says.
    """
    if content[:8] != SIGNATURE or content[12:16] != b"IHDR" or content[-8:-4] != b"IEND":
        raise InputError(f"{name} must be a whole PNG; its signature or its end is missing")
    width, height = (int.from_bytes(content[at : at + 4], "big") for at in (16, 20))
    bits, colour = content[24], content[25]
    if (bits, colour) != (8, COLOURS[index.channels]):
        kind = {0: "grey", 2: "RGB", 3: "palette", 4: "grey with alpha", 6: "RGB with alpha"}.get(colour, "unknown")
        raise InputError(f"{name} must be 8-bit {'grey' if index.channels == 1 else 'RGB'}; it is {bits}-bit {kind}")
    if (height, width) != (index.height, index.width):
        raise InputError(f"{name} must be {index.width}x{index.height}, as the index says; it is {width}x{height}")
    try:
        with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
            if image.has_transparency_data or image.mode != MODES[index.channels]:
                raise ValueError("it has transparent pixels")
            pixels = np.array(image)
    except Exception as error:  # damaged files make the decoder raise almost anything
        raise InputError(f"{name} cannot be read: {error}") from error
    return torch.from_numpy(pixels).view(height, width, index.channels).permute(2, 0, 1)


def _said(error: ValidationError, where: str) -> InputError:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    return InputError(f"{where}: {place + ': ' if place else ''}{first['msg']}")
