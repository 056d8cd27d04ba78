"""Accuracy under attack, in batches."""

from typing import Any

import pytest

from jobs.common.attacks import Ball
from jobs.common.attacks.pgd import FGSM
from jobs.common.robustness.accuracy import attacked
from service.errors import InputError
from tests.jobs.white import Failing, GreyAndWhite


def test_an_image_is_named_by_its_place_in_the_set_not_in_its_batch() -> None:
    images: Any = GreyAndWhite()
    with pytest.raises(InputError, match=r"logits must be finite; those of images\[5\] are not"):
        attacked(Failing().eval(), images, FGSM(), Ball("Linf", 0.1), 2, lambda batch: batch)
