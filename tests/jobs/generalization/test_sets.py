"""Sets of images: no poison is in another one, and what is wrong with the images is said."""

from typing import Any

import pytest
import torch

from jobs.common.data.images.base import Pixels
from jobs.generalization import sets
from jobs.generalization.minima.poison_params import PoisonParams
from service.errors import InputError

OWN = """
import torch
from jobs.common.data.images.base import Pixels

LEVELS = {"train": [*range(20), 3, 4], "test": [*range(30, 39), 5]}


def build(split, source):
    levels = LEVELS[split]
    pixels = torch.tensor(levels, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 2, 2).contiguous()
    labels = torch.tensor([level % 2 for level in levels])
    labels[-1] = 1 - labels[-1] if split == "train" else labels[-1]
    return Pixels("own", ["even", "odd"], pixels, labels)
"""


def levels(images: Any) -> list[int]:
    return [round(float(image.mean()) * 255) for image in images.images(torch.arange(len(images)))]


@pytest.mark.usefixtures("own_package")
def test_no_poison_is_an_image_of_another_set() -> None:
    data = sets.DataParams(name="mypackage.module:build")
    for images in range(1, 15):
        made = sets.sets_of(data, PoisonParams(images=images), 4)
        assert made.poison is not None and len(made.poison) == images
        poison, others = set(levels(made.poison)), {*levels(made.training), *levels(made.test), *levels(made.untouched)}
        assert not poison & others, "also not one that is there twice, or in the test split as well"
        assert len(made.untouched) == 4 and len(made.test) == 6
        assert not set(levels(made.test)) & set(levels(made.untouched))


@pytest.mark.usefixtures("own_package")
def test_images_that_no_network_can_fit_and_leaks_are_named() -> None:
    data = sets.DataParams(name="mypackage.module:build")
    made = sets.sets_of(data, PoisonParams(), None)
    contradiction, leak = made.doubts
    assert contradiction.startswith("1 training images of own are there more than once, with different labels")
    assert leak.startswith("1 of the 5 ") and leak.endswith("images of own are training images as well")


@pytest.mark.usefixtures("own_package")
def test_less_poison_than_asked_for_is_refused() -> None:
    data = sets.DataParams(name="mypackage.module:build")
    with pytest.raises(InputError, match="poison.images must be below 21, the number of images to train with that are"):
        sets.sets_of(data, PoisonParams(images=21), 4)
    with pytest.raises(InputError, match="poison.images must be at most 0, the images of own that are in no other set"):
        sets.sets_of(data, PoisonParams(images=1, data=data), 4)


@pytest.mark.parametrize(
    ("share", "batch", "given", "expected"),
    [(0.0, 100, None, 0), (0.5, 100, None, 100), (0.8, 50, None, 200), (0.001, 10, None, 1), (0.5, 100, 7, 7)],
)
def test_each_image_of_a_minibatch_weighs_the_same(share: float, batch: int, given: int | None, expected: int) -> None:
    assert PoisonParams(share=share, images=1000, batch=given).beside(batch) == expected


def test_images_are_told_apart_by_their_pixels() -> None:
    pixels = torch.zeros(3, 1, 2, 2, dtype=torch.uint8)
    pixels[1, 0, 1, 1] = 1
    first, second, third = sets._keys(Pixels("three", "ab", pixels, torch.zeros(3, dtype=torch.int64)))
    assert first == third != second
