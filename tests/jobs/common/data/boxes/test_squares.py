"""Photographs in squares: pixels and boxes lie where Pillow pastes them, and odd files and boxes are dealt with."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from jobs.common.data.boxes import squares as module
from jobs.common.data.boxes.base import Part, Source
from jobs.common.data.boxes.squares import Photograph, SquareFiles, Squares, inside
from jobs.common.detection.boxes import Boxes
from service.errors import FieldError, InputError, UnknownNameError

CLASSES = ("person", "cup")
BOX = Boxes(torch.tensor([[30.0, 10.0, 70.0, 50.0]]), torch.tensor([1]))


def saved(folder: Path, image: Image.Image, name: str = "image.png", boxes: Boxes = BOX) -> Photograph:
    image.save(folder / name)
    return Photograph(folder / name, image.height, image.width, boxes)


def made(photographs: list[Photograph], **source: object) -> SquareFiles:
    return SquareFiles("mine", CLASSES, photographs, Source(**source), [])


def marked(height: int = 60, width: int = 100) -> Image.Image:
    """Black, but white in the box."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[10:50, 30:70] = 255
    return Image.fromarray(pixels)


@pytest.mark.parametrize("side", [100, 250, 64])
def test_the_box_lies_on_what_it_is_of(tmp_path: Path, side: int) -> None:
    images = made([saved(tmp_path, marked())], side=side)
    pixels = images.images(torch.tensor([0]))
    assert pixels.shape == (1, 3, side, side) and pixels.dtype == torch.float32
    assert float(pixels[0, 0, 0, 0]) == pytest.approx(0.5, abs=0.01), "grey is above"
    rows, columns = (pixels[0, 0] > 0.75).nonzero(as_tuple=True)
    found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert images.boxes(0).corners[0].tolist() == pytest.approx([float(each) for each in found], abs=1)
    assert images.boxes(0).labels.tolist() == [1]


def test_an_image_of_its_size_is_itself(tmp_path: Path) -> None:
    photo = Image.fromarray(data.astronaut()[:64, :64])
    images = made([saved(tmp_path, photo)], side=64)
    assert torch.equal(images.images(torch.tensor([0]))[0], torch.from_numpy(np.array(photo)).permute(2, 0, 1) / 255)


def test_a_turned_image_counts_as_it_is_seen(tmp_path: Path) -> None:
    turned = marked().transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    turned.save(tmp_path / "turned.png", exif=exif)
    straight = made([saved(tmp_path, marked())], side=100).images(torch.tensor([0]))
    seen = made([Photograph(tmp_path / "turned.png", 60, 100, BOX)], side=100)
    assert torch.equal(seen.images(torch.tensor([0])), straight)
    lying = made([Photograph(tmp_path / "turned.png", 100, 60, BOX)], side=100)
    with pytest.raises(InputError, match=r"is 100x60, but its boxes are for one of 60x100 \(an image counts as it is"):
        lying.images(torch.tensor([0]))


def test_grey_transparent_and_deep_images(tmp_path: Path) -> None:
    level = np.full((40, 40), 100, np.uint8)
    deep = Image.fromarray(level.astype(np.uint16) * 256)
    clear = Image.fromarray(np.dstack([level, level, level, np.zeros_like(level)]))
    files = [
        saved(tmp_path, Image.fromarray(level), "grey.png"),
        saved(tmp_path, deep, "deep.png"),
        saved(tmp_path, clear, "clear.png"),
    ]
    pixels = made(files, side=40).images(torch.arange(3))
    assert (pixels[:2] * 255 == 100).all() and (pixels[2] == 1).all(), "what is transparent lies on white"


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "image.png").write_bytes(b"no image")
    with pytest.raises(InputError, match="image.png' cannot be read"):
        made([Photograph(tmp_path / "image.png", 60, 100, BOX)]).images(torch.tensor([0]))


def test_boxes_that_are_left_out() -> None:
    corners = torch.tensor(
        [
            [10.0, 10, 20, 20],
            [-10, -10, 20, 20],
            [90, 50, 500, 500],
            [10, 10, 10, 20],  # no width
            [20, 10, 10, 20],  # inside out
            [200, 10, 300, 20],  # outside
            [0, float("nan"), 10, 20],
            [0, 0, float("inf"), 20],
        ]
    )
    boxes, count = inside(corners, torch.arange(8), (60, 100))
    assert boxes.labels.tolist() == [0, 1, 2] and count == 5
    assert boxes.corners.tolist() == [[10, 10, 20, 20], [0, 0, 20, 20], [90, 50, 100, 60]]


def test_photographs_that_are_left_out(tmp_path: Path) -> None:
    low = Boxes(torch.tensor([[0.0, 0, 20, 10]]), torch.tensor([0]))
    high = Boxes(torch.tensor([[0.0, 0, 20, 50]]), torch.tensor([0]))
    files = [saved(tmp_path, marked(), f"{number}.png", boxes) for number, boxes in enumerate((low, high, BOX))]
    assert len(made(files)) == 3
    assert len(made(files, containing="person")) == 2
    assert len(made(files, containing="person", tallest_at_least=0.4)) == 1, "50 of 100 pixels"
    with pytest.raises(InputError, match="mine: there is no image with a cup that is tall enough"):
        made(files, containing="cup", tallest_at_least=0.9)
    with pytest.raises(UnknownNameError, match="did you mean 'person'"):
        made(files, containing="persn")
    with pytest.raises(FieldError, match="data.tallest_at_least must be 0 without data.containing"):
        made(files, tallest_at_least=0.5)
    with pytest.raises(InputError, match="mine: there is no image"):
        made([])


def test_squares_that_are_kept_are_few_and_not_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_KEPT", 2 * 3 * 40 * 40)
    images = made([saved(tmp_path, marked(), f"{number}.png") for number in range(4)], side=40)
    first = images.images(torch.arange(4))
    assert len(images._kept) == 2
    again = pickle.loads(pickle.dumps(images))
    assert len(again._kept) == 0 and torch.equal(again.images(torch.arange(4)), first)
    assert again.digest == images.digest != made([saved(tmp_path, marked())], side=40).digest


def test_a_set_in_memory_and_a_part_of_it() -> None:
    pixels = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    whole = Squares("mine", CLASSES, pixels, [BOX, BOX, BOX], "nobody", ["a remark"])
    part = Part(whole, torch.tensor([2, 0]))
    assert torch.equal(part.images(torch.tensor([0])), pixels[2:].float() / 255)
    assert (part.side, part.boxed_by, part.remarks) == (32, "nobody", ("a remark",)) and part.boxes(1) == BOX
    other = Squares("mine", CLASSES, pixels, [BOX, BOX, Boxes(BOX.corners, torch.tensor([0]))], "nobody")
    assert other.digest != whole.digest
