"""Image and labels change together: an image that shows its labels still does so afterwards."""

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from jobs.common.data.masks.augmentation import DRAWS, JointAugmentationParams, crop, resize, rotate
from jobs.common.metrics.segmentation import IGNORE


def blocks(height: int = 40, width: int = 56) -> tuple[Tensor, Tensor]:
    """Squares of 8 pixels of four classes; a pixel of class c is 40 + 50 c in each channel."""
    classes = torch.randint(0, 4, (-(-height // 8), -(-width // 8)), generator=torch.Generator().manual_seed(2))
    labels = classes.repeat_interleave(8, 0).repeat_interleave(8, 1)[:height, :width].to(torch.uint8)
    return (40 + 50 * labels).expand(3, -1, -1).contiguous(), labels


def agreement(image: Tensor, labels: Tensor) -> float:
    """Of the pixels that count, how many show their label; pixels between two squares are mixed."""
    counted = labels != IGNORE
    shown = ((image[0].double() - 40) / 50).round()
    return float((shown == labels)[counted].double().mean())


@pytest.mark.parametrize("seed", range(6))
def test_all_changes_at_once_keep_the_two_together(seed: int) -> None:
    params = JointAugmentationParams(scale=(0.5, 2.0), crop=48, flip=True, rotate=10.0)
    draws = torch.rand(DRAWS, generator=torch.Generator().manual_seed(seed))
    image, labels = params.apply(*blocks(), draws)
    assert image.shape == (3, 48, 48) and labels.shape == (48, 48) and image.dtype == labels.dtype == torch.uint8
    assert set(labels.unique().tolist()) <= {0, 1, 2, 3, IGNORE}, "labels are never mixed"
    assert agreement(image, labels) > 0.85
    shifted = labels.roll(3, 1)
    assert agreement(image, shifted) < agreement(image, labels) - 0.1, "the check would see a shift"


def test_a_crop_larger_than_the_image_is_padded_on_all_sides() -> None:
    image, labels = blocks(20, 30)
    larger, around = crop(image, labels, 64, 0.9, 0.9)
    assert torch.equal(larger[:, 22:42, 17:47], image) and torch.equal(around[22:42, 17:47], labels)
    assert int((around != IGNORE).sum()) == 600 and int(larger.long().sum()) == int(image.long().sum())


def test_crops_reach_all_places() -> None:
    image, labels = blocks()
    for row, top in ((0.0, 0), (0.999999, 40 - 16)):
        part, _ = crop(image, labels, 16, row, 0.0)
        assert torch.equal(part, image[:, top : top + 16, :16])


def test_a_flip_is_a_mirror_of_both() -> None:
    image, labels = blocks()
    params = JointAugmentationParams()
    flipped, mirrored = params.apply(image, labels, torch.tensor([0.0, 0, 0, 0.4, 0]))
    assert torch.equal(flipped, image.flip(2)) and torch.equal(mirrored, labels.flip(1))
    same, _ = params.apply(image, labels, torch.tensor([0.0, 0, 0, 0.6, 0]))
    assert torch.equal(same, image)


def test_a_quarter_turn_is_exact_and_corners_do_not_count() -> None:
    image, labels = blocks(40, 40)
    turned, around = rotate(image, labels, 90.0)
    assert torch.equal(turned, image.rot90(1, (1, 2))) and torch.equal(around, labels.rot90(1))
    _, around = rotate(image, labels, 45.0)
    assert around[0, 0] == around[-1, -1] == IGNORE and around[20, 20] != IGNORE


def test_twice_the_size_and_back() -> None:
    image, labels = blocks()
    larger = resize(image, labels, 2.0)
    assert larger[1].shape == (80, 112) and torch.equal(larger[1][::2, ::2], labels)
    assert resize(image, labels, 0.001)[1].shape == (1, 1)


def test_scales_that_are_out_of_order_are_refused() -> None:
    with pytest.raises(ValidationError, match="scale must be two numbers from 0.01 to 100, the least first"):
        JointAugmentationParams(scale=(2.0, 0.5))
