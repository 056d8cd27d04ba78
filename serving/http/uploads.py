"""Uploaded files: the body of a request as the input of a model, and an input as an image again.

curl --data-binary @cat.png -H 'Content-Type: image/png' http://localhost:8000/v2/models/photos/infer
"""

import io
import math
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from PIL import Image

from jobs.common.data.image_files import centre, decode
from service.errors import InputError
from serving.http.tensors import Array

FORMATS = ("PNG", "JPEG", "WEBP")
MODES = {1: "L", 3: "RGB"}  # of Pillow, by the number of channels
PNG_MEDIA, WAV_MEDIA = "image/png", "audio/wav"
BYTES_OF_PIXEL = 20  # as decoded, as RGB, and as three float32


class Upload(Protocol):
    """How an uploaded file becomes the input of a model.

    medium: the first half of its media type, such as "image". input: the name of the input.
    """

    @property
    def medium(self) -> str: ...

    @property
    def input(self) -> str: ...

    def memory(self, body: bytes) -> int:
        """Bytes that it takes at most to read the file. Nothing is decoded, and nothing raised about what is wrong."""

    def read(self, body: bytes) -> Array:
        """The input, one row. InputError says what is wrong with the file."""


@dataclass(frozen=True)
class ImageUpload:
    """How an uploaded image becomes the input of a model.

    channels: 1 or 3. height, width: -1 takes any. resize: the length of the shorter side before the centre is cut out;
    None: that of the input. most_pixels: of the upload.
    """

    medium: ClassVar[str] = "image"

    input: str
    channels: int
    height: int
    width: int
    resize: int | None
    most_pixels: int

    def memory(self, body: bytes) -> int:
        try:
            with Image.open(io.BytesIO(body), formats=FORMATS) as image:
                pixels = min(math.prod(image.size), self.most_pixels)
        except Exception:  # `read` says what is wrong
            pixels = 0
        return len(body) + BYTES_OF_PIXEL * pixels

    def read(self, body: bytes) -> Array:
        """An image as FP32 (1, channels, height, width) in [0, 1]. InputError says what is wrong with it.

        It is resized, and its centre is cut out, as those were that the model was evaluated on.
        """
        image = decode(io.BytesIO(body), "the uploaded image", FORMATS, self.most_pixels)
        if self.channels not in MODES:
            raise InputError(f"the model takes {self.channels} channels, which no image has; send a tensor")
        height = image.height if self.height == -1 else self.height
        width = image.width if self.width == -1 else self.width
        image = centre(image, height, width, self.resize)
        pixels = np.atleast_3d(np.asarray(image.convert(MODES[self.channels])))  # (height, width, channels)
        return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], np.float32) / np.float32(255)


def to_png(array: Array) -> bytes:
    """A grey or colour image (channels, height, width) in [0, 1], its pixels rounded to 8 bits."""
    pixels = np.rint(array * 255).astype(np.uint8).transpose(1, 2, 0)
    file = io.BytesIO()
    Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels).save(file, "PNG")
    return file.getvalue()


def indexed_png(labels: Array, palette: Array) -> bytes:
    """A map of labels as the indices of a PNG. labels: uint8 (height, width). palette: uint8 (labels, 3)."""
    image = Image.fromarray(labels)
    image.putpalette(palette.tobytes())
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
