"""The cells of an evaluation."""

from typing import Any

import pytest

from jobs.common.robustness import slices
from service.errors import InputError
from tests.jobs.white import Failing, GreyAndWhite


def test_an_image_is_named_by_its_place_in_the_set_not_in_its_slice() -> None:
    images: Any = GreyAndWhite()
    subject = slices.Subject("failing", Failing().eval(), images, "Linf")
    cell = {"span": [4, 6], "attack": {"kind": "fgsm"}, "epsilon": 0.1, "seed": 0, "show": 0}
    with pytest.raises(InputError, match=r"logits must be finite; those of images\[5\] are not"):
        slices.attack(cell, subject)
