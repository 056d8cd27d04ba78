"""Folders of images: odd and hostile files, crops against torchvision's, draws that do not depend on threads."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import functional

from jobs.common.data.image_files import decode
from jobs.common.data.images import DataParams
from jobs.common.data.images.folder import TRIES, part
from jobs.common.data.images.photo_patches import photograph
from service.errors import InputError

RED, BLUE = (255, 0, 0), (0, 0, 255)


def halves(width: int = 60, height: int = 40) -> Image.Image:
    """Red on the left, blue on the right."""
    image = Image.new("RGB", (width, height), RED)
    image.paste(BLUE, (width // 2, 0, width, height))
    return image


def corners(file: Path) -> list[tuple[int, ...]]:
    image = decode(file, str(file))
    assert image.mode == "RGB"
    pixels = np.array(image)
    return [tuple(int(value) for value in pixels[row, column]) for row in (0, -1) for column in (0, -1)]


def test_an_image_is_turned_as_its_exif_data_say(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the left is to be on top
    halves().save(tmp_path / "turned.png", exif=exif)
    assert decode(tmp_path / "turned.png", "image").size == (40, 60)
    assert corners(tmp_path / "turned.png") == [RED, RED, BLUE, BLUE]


def test_transparent_is_white(tmp_path: Path) -> None:
    image = halves().convert("RGBA")
    image.putalpha(Image.new("L", image.size, 255))
    image.paste((0, 255, 0, 0), (0, 0, 30, 40))
    image.save(tmp_path / "alpha.png")
    assert corners(tmp_path / "alpha.png") == [(255, 255, 255), BLUE, (255, 255, 255), BLUE]
    halves().quantize(2).save(tmp_path / "palette.png", transparency=0)
    assert (255, 255, 255) in corners(tmp_path / "palette.png")


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "LA"])
def test_other_modes(tmp_path: Path, mode: str) -> None:
    image = Image.new("L", (20, 20), 255).convert(mode)
    file = tmp_path / f"image.{'tiff' if mode == 'CMYK' else 'png'}"
    image.save(file)
    assert corners(file) == [(255, 255, 255)] * 4


def test_sixteen_bits_of_grey_keep_their_brightness(tmp_path: Path) -> None:
    Image.fromarray(np.full((10, 10), 128 * 256, np.uint16)).save(tmp_path / "deep.png")
    assert corners(tmp_path / "deep.png") == [(128, 128, 128)] * 4


@pytest.mark.parametrize(
    ("name", "pixels"),
    [
        ("deep.tif", np.array([[0, 32768, 65535]], np.uint16)),
        ("big_endian.tif", np.array([[0, 32768, 65535]], ">u2")),
        ("deep.ppm", np.array([[0, 32768, 65535]], np.int32)),  # Pillow writes 16 bits of them
    ],
)
def test_sixteen_bits_of_grey_in_all_formats(tmp_path: Path, name: str, pixels: np.ndarray) -> None:
    Image.fromarray(pixels).save(tmp_path / name)
    assert np.array(decode(tmp_path / name, name))[0, :, 0].tolist() == [0, 128, 255]


def twelve_bits() -> bytes:
    """A TIFF of two pixels of 12 bits, black and white, which Pillow does not write."""
    entries = [(256, 3, 2), (257, 3, 1), (258, 3, 12), (259, 3, 1), (262, 3, 1), (273, 4, 122), (277, 3, 1)]
    entries += [(278, 3, 1), (279, 4, 3)]
    directory = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + directory + b"\0\0\0\0" + b"\0\x0f\xff"


def test_twelve_bits_of_grey_keep_their_brightness(tmp_path: Path) -> None:
    (tmp_path / "deep.tif").write_bytes(twelve_bits())
    assert corners(tmp_path / "deep.tif")[:2] == [(0, 0, 0), (255, 255, 255)]


@pytest.mark.parametrize(
    ("pixels", "kind"),
    [
        (np.linspace(0, 1, 12, dtype=np.float32), "fractions"),
        (np.linspace(0, 255, 12, dtype=np.float32), "fractions"),
        (np.linspace(0, 70_000, 12).astype(np.int32), "signed or of 32 bits"),
    ],
)
def test_pixels_without_an_agreed_range_are_refused(tmp_path: Path, pixels: np.ndarray, kind: str) -> None:
    Image.fromarray(pixels.reshape(3, 4)).save(tmp_path / "image.tif")
    sentence = f"image cannot be read: its pixels are {kind}, and nobody says which are black and white"
    with pytest.raises(InputError, match=sentence):
        decode(tmp_path / "image.tif", "image")


def test_sixteen_bits_from_white_to_black_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((3, 4), np.uint16)).save(tmp_path / "image.tif", tiffinfo={262: 0})
    with pytest.raises(InputError, match="go from white to black"):
        decode(tmp_path / "image.tif", "image")


def bomb() -> bytes:
    """A PNG of a few bytes that says it has ten thousand million pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("kind", ["truncated", "text", "empty", "bomb", "large", "long", "gif"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "train/a/broken.png"
    file.parent.mkdir(parents=True)
    if kind == "large":  # below the limit of Pillow, above ours
        Image.new("1", (8001, 8001)).save(file)
    elif kind == "long":
        Image.new("L", (2, 1000)).save(file)
    elif kind == "gif":
        halves().save(file, format="GIF")
    else:
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 50, 3), dtype=np.uint8)).save(file)
        whole = file.read_bytes()
        file.write_bytes({"truncated": whole[: len(whole) // 2], "text": b"hello", "empty": b"", "bomb": bomb()}[kind])
    images = DataParams(name="image_folder", root=str(tmp_path)).load("train")
    with pytest.raises(InputError, match="image .*broken.png' cannot be read: "):
        images.images(torch.tensor([0]))


def two_classes(root: Path) -> None:
    for split in ("train", "val"):
        for name, photo in (("cup", "coffee"), ("cat", "chelsea")):
            (root / split / name).mkdir(parents=True)
            pixels = photograph(photo).permute(1, 2, 0).numpy()
            for index in range(3):
                Image.fromarray(pixels[20 * index :, : 500 - 100 * index]).save(root / split / name / f"{index}.JPEG")
    (root / "train/cat/notes.txt").write_text("no image")


def test_folders_are_classes(tmp_path: Path) -> None:
    two_classes(tmp_path)
    params = DataParams(name="imagenet", root=str(tmp_path), image_size=64)
    train, test = params.load("train"), params.load("test")
    assert train.classes == ("cat", "cup") and train.labels.tolist() == [0, 0, 0, 1, 1, 1] and len(test) == 6
    found = train.images(torch.tensor([5, 0, 5]))
    assert found.shape == (3, 3, 64, 64) and found.dtype == torch.float32
    assert 0 <= float(found.min()) < 0.2 and 0.8 < float(found.max()) <= 1
    assert torch.equal(found[0], found[2]) and not torch.equal(found[0], found[1])
    assert train.images(torch.empty(0, dtype=torch.int64)).shape == (0, 3, 64, 64)
    before = train.digest
    assert params.load("train").digest == before
    (tmp_path / "train/cat/0.JPEG").unlink()
    assert params.load("train").digest != before
    assert len(DataParams(name="imagenet", root=str(tmp_path), train_limit=2).load("train")) == 2


def test_the_centre_is_that_of_torchvision(tmp_path: Path) -> None:
    two_classes(tmp_path)
    images = DataParams(name="image_folder", root=str(tmp_path)).load("test")
    found = images.images(torch.arange(6))
    files = [tmp_path / f"val/{name}/{index}.JPEG" for name in ("cat", "cup") for index in range(3)]
    for image, file in zip(found, files, strict=True):
        with Image.open(file) as opened:
            expected = functional.to_tensor(functional.center_crop(functional.resize(opened, 256), [224, 224]))
        assert torch.equal(image, expected)


def test_random_parts_depend_on_the_generator_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two_classes(tmp_path)
    images = DataParams(name="image_folder", root=str(tmp_path), image_size=32).load("train")
    state = torch.get_rng_state()

    def draw(seed: int) -> torch.Tensor:
        return images.images(torch.arange(6), torch.Generator().manual_seed(seed))

    first = draw(1)
    assert torch.equal(first, draw(1)) and not torch.equal(first, draw(2))
    monkeypatch.setattr("jobs.common.data.images.folder.THREADS", 1)
    assert torch.equal(first, draw(1))
    assert torch.equal(torch.get_rng_state(), state)


shares = st.floats(0, 1, exclude_max=True)


@given(st.integers(1, 3000), st.integers(1, 3000), st.lists(st.tuples(shares, shares), min_size=TRIES + 1, max_size=11))
def test_a_random_part_fits(width: int, height: int, draws: list[tuple[float, float]]) -> None:
    left, top, right, bottom = part((width, height), draws)
    assert -1e-6 <= left < right <= width + 1e-6 and -1e-6 <= top < bottom <= height + 1e-6
    assert 3 / 4 - 1e-6 <= (right - left) / (bottom - top) <= 4 / 3 + 1e-6


def test_random_parts_are_spread_as_those_of_torchvision() -> None:
    draws = torch.rand(4000, TRIES + 1, 2, generator=torch.Generator().manual_seed(0)).tolist()
    boxes = torch.tensor([part((300, 200), each) for each in draws])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        from torchvision.transforms import RandomResizedCrop

        blank = torch.empty(3, 200, 300)
        reference = torch.tensor(
            [RandomResizedCrop.get_params(blank, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(4000)]
        ).float()  # top, left, height, width
    ours = torch.stack([boxes[:, 1], boxes[:, 0], boxes[:, 3] - boxes[:, 1], boxes[:, 2] - boxes[:, 0]], 1)
    for quantile in (0.1, 0.25, 0.5, 0.75, 0.9):
        difference = ours.quantile(quantile, dim=0) - reference.quantile(quantile, dim=0)
        assert float(difference.abs().max()) < 8, "pixels of 200 and 300"
