"""Classes by name and by number."""

import pytest
import torch

from jobs.common.data.classes import class_index, images_of, labels_of
from jobs.common.data.images.base import Pixels
from service.errors import InputError, UnknownNameError

IMAGES = Pixels("pets", ("cat", "dog", "0"), torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.tensor([1, 0, 1, 0]))


def test_a_class_by_its_name_or_its_number() -> None:
    assert [class_index(IMAGES.classes, name) for name in ("dog", "1", "0")] == [1, 1, 2], "names come first"
    assert labels_of(["dog", "cat", "1"], IMAGES) == (0, 1)
    for name in ("dgo", "3", "-1", ""):
        with pytest.raises(UnknownNameError, match="unknown class"):
            class_index(IMAGES.classes, name)


def test_the_images_of_classes() -> None:
    assert images_of(IMAGES, (1,)).tolist() == [0, 2]
    with pytest.raises(InputError, match="pets has no image of 0"):
        images_of(IMAGES, (2,))
