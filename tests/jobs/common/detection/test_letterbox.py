"""Images in a frame: where they lie, what is beside them, and the way back."""

import pytest
import torch

from jobs.common.detection.letterbox import letterbox
from service.errors import InputError


@pytest.mark.parametrize("size", [(96, 96), (50, 200), (200, 50), (1, 1), (1, 700), (33, 47)])
def test_the_way_back(size: tuple[int, int]) -> None:
    height, width = size
    frames, placement = letterbox(torch.rand(2, 3, height, width), 64, 96)
    assert frames.shape == (2, 3, 64, 96)
    inside = torch.tensor([placement.left, placement.top, placement.left, placement.top])
    inside = inside + torch.tensor([0, 0, placement.across * width, placement.down * height])
    assert placement.back(inside).tolist() == pytest.approx([0, 0, width, height], abs=1e-4)
    assert torch.allclose(placement.into(placement.back(inside)), inside)
    left, top, right, bottom = inside.round().long().tolist()
    beside = torch.ones(64, 96, dtype=torch.bool)
    beside[top:bottom, left:right] = False
    assert bool((frames[:, :, beside] == 0.5).all())
    assert min(right - left, 96) == 96 or bottom - top == 64, "it is as large as the frame holds"


def test_an_object_comes_back_to_its_place() -> None:
    image = torch.zeros(1, 3, 60, 120)
    image[:, :, 20:40, 80:100] = 1
    frames, placement = letterbox(image, 240, 240)
    rows, columns = (frames[0, 0] > 0.9).nonzero(as_tuple=True)
    corners = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]).float()
    assert placement.back(corners).tolist() == pytest.approx([80, 20, 100, 40], abs=0.6)


def test_a_frame_of_the_same_size_changes_nothing() -> None:
    images = torch.rand(1, 3, 64, 96)
    frames, placement = letterbox(images, 64, 96)
    assert torch.equal(frames, images) and (placement.left, placement.top, placement.across) == (0, 0, 1)


@pytest.mark.parametrize("size", [(10, 20), (300, 170)])
def test_every_pixel_has_a_gradient(size: tuple[int, int]) -> None:
    images = torch.rand(1, 3, *size, requires_grad=True)
    letterbox(images, 64, 64)[0].sum().backward()
    assert images.grad is not None and bool((images.grad > 0).all())


@pytest.mark.parametrize(
    ("images", "form"),
    [
        (torch.zeros(3, 8, 8), r"float32 \(3, 8, 8\)"),
        (torch.zeros(1, 1, 8, 8), r"float32 \(1, 1, 8, 8\)"),
        (torch.zeros(1, 3, 0, 8), r"float32 \(1, 3, 0, 8\)"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), r"uint8 \(1, 3, 8, 8\)"),
    ],
)
def test_what_is_no_batch_of_colour_images(images: torch.Tensor, form: str) -> None:
    with pytest.raises(InputError, match=f"images must be floats .*; they are {form}"):
        letterbox(images, 64, 64)
