"""Uploaded images of every sort: what a model sees of them, and what is refused before it is decoded."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from service.errors import InputError
from serving.http.uploads import ImageUpload, to_png

ANY = ImageUpload("images", 3, -1, -1, None, 10_000)
RED, BLUE = (255, 0, 0), (0, 0, 255)


def halves(width: int = 60, height: int = 40) -> Image.Image:
    """Red on the left, blue on the right."""
    image = Image.new("RGB", (width, height), RED)
    image.paste(BLUE, (width // 2, 0, width, height))
    return image


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def read(body: bytes, into: ImageUpload = ANY) -> np.ndarray:
    array = into.read(body)
    assert array.dtype == np.float32 and array.flags.c_contiguous and array.min() >= 0 and array.max() <= 1
    return array


def test_pixels_are_those_of_the_file() -> None:
    values = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    array = read(encoded(Image.fromarray(values)))
    np.testing.assert_array_equal(array[0], values.transpose(2, 0, 1).astype(np.float32) / np.float32(255))


def test_a_png_of_an_input_is_that_input_to_8_bits() -> None:
    for channels in (1, 3):
        into = ImageUpload("images", channels, -1, -1, None, 10_000)
        array = np.random.default_rng(0).random((channels, 6, 4), np.float32)
        again = read(to_png(array), into)[0]
        np.testing.assert_array_equal(again, np.rint(array * 255) / np.float32(255))
        np.testing.assert_array_equal(read(to_png(again), into)[0], again)


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "RGBA", "CMYK", "I;16"])
def test_every_mode_of_white_is_white(mode: str) -> None:
    image = Image.new("L", (6, 6), 255)
    if mode == "I;16":
        body = encoded(Image.fromarray(np.full((6, 6), 65535, np.uint16)))
    else:
        body = encoded(image.convert(mode), "JPEG" if mode == "CMYK" else "PNG")
    for channels in (1, 3):
        array = read(body, ImageUpload("images", channels, 6, 6, None, 10_000))
        assert array.shape == (1, channels, 6, 6) and array.min() > 0.99


def test_what_is_transparent_is_white_and_what_is_turned_is_turned() -> None:
    image = halves().convert("RGBA")
    image.putalpha(0)
    assert read(encoded(image)).min() == 1
    exif = Image.Exif()
    exif[0x0112] = 6  # the left is to be on top
    array = read(encoded(halves(), "JPEG", exif=exif, quality=95))
    assert array.shape == (1, 3, 60, 40) and array[0, 0, 5].mean() > 0.9 and array[0, 2, -5].mean() > 0.9


def test_grey_models_see_the_luminance() -> None:
    array = read(encoded(halves()), ImageUpload("images", 1, -1, -1, None, 10_000))
    weights = {"red": 0.299, "blue": 0.114}  # ITU-R 601-2
    assert array[0, 0, 0, 0] == pytest.approx(weights["red"], abs=0.01)
    assert array[0, 0, 0, -1] == pytest.approx(weights["blue"], abs=0.01)


def test_an_image_of_the_size_stays_and_another_gives_its_centre() -> None:
    into = ImageUpload("images", 3, 40, 60, None, 10_000)
    values = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    np.testing.assert_array_equal(read(encoded(Image.fromarray(values)), into)[0, :, 3, 5] * 255, values[3, 5])
    wide = Image.new("RGB", (300, 30), BLUE)
    wide.paste(RED, (140, 0, 160, 30))
    assert (read(encoded(wide), ImageUpload("images", 3, 10, 6, None, 10_000))[0, 0] > 0.99).all(), (
        "6 of 10 wide: all red"
    )
    assert (read(encoded(wide), ImageUpload("images", 3, 16, 6, 8, 10_000))[0, 0] > 0.99).all()
    resized = read(encoded(wide), ImageUpload("images", 3, 10, 10, 15, 10_000))  # 15 high, so the red is 10 wide
    assert (resized[0, 0, :, 1:-1] > 0.9).all()


def test_of_an_animation_the_first_frame_is_taken() -> None:
    frames = [Image.new("RGB", (5, 5), colour) for colour in (RED, BLUE)]
    array = read(encoded(frames[0], save_all=True, append_images=frames[1:], duration=10))
    assert array[0, 0].min() == 1 and array[0, 2].max() == 0


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(width: int, height: int) -> bytes:
    """A PNG that says it is that large, and holds next to nothing."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "none of PNG, JPEG"),
        (b"GIF89a" + b"\0" * 40, "none of PNG, JPEG"),
        (encoded(halves(), "TIFF"), "none of PNG, JPEG"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 50, "cannot be read"),
        (encoded(halves())[:90], "cannot be read"),
        (encoded(halves(), "JPEG")[:-200], "cannot be read"),
        (bomb(50_000, 50_000), "2500000000 pixels"),
        (bomb(2**31 - 1, 2**31 - 1), "cannot be read"),
        (bomb(101, 100), "at most 10,000 pixels; it has 10,100"),
        (bomb(1, 9_999), "at most 50 times as long as wide; it is 1x9999"),
        (bomb(0, 5), "cannot be read"),
    ],
)
def test_what_cannot_be_read_is_refused(body: bytes, sentence: str) -> None:
    with pytest.raises(InputError, match="the uploaded image cannot be read") as raised:
        ANY.read(body)
    assert sentence in str(raised.value)


def test_no_image_has_two_channels() -> None:
    with pytest.raises(InputError, match="takes 2 channels"):
        ImageUpload("images", 2, 8, 8, None, 10_000).read(encoded(halves()))
