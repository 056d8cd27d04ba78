"""Replicated images, and the exact law: a network behind an average has the same curve, epsilon being scaled."""

import pytest
import torch

from jobs.common.attacks import PGD, Ball
from jobs.common.attacks.ball import Norm
from jobs.inevitability.resolutions import Averaged, Replicated, at_resolution, factor, norms_of
from tests.jobs.inevitability.subjects import COUNT, DIGITS, pixels

IMAGES = pixels(DIGITS.images[:COUNT])


@pytest.mark.parametrize(("norm", "power"), [("Linf", 0), ("L2", 1), ("L1", 2), ("L0", 2)])
def test_norms_grow_with_the_resolution(norm: Norm, power: int) -> None:
    small = norms_of(IMAGES.images(torch.arange(COUNT)), norm)
    for resolution in (2, 3):
        large = norms_of(Replicated(IMAGES, resolution).images(torch.arange(COUNT)), norm)
        assert factor(norm, resolution) == resolution**power
        torch.testing.assert_close(large, small * resolution**power)


def test_every_pixel_is_replicated() -> None:
    large = at_resolution(IMAGES, 3)
    assert large.shape == (1, 24, 24) and len(large) == COUNT and torch.equal(large.labels, IMAGES.labels)
    rows = torch.tensor([4, 7])
    small, images = IMAGES.images(rows), large.images(rows)
    for row in range(3):
        for column in range(3):
            assert torch.equal(images[:, :, row::3, column::3], small)
    assert at_resolution(IMAGES, 1) is IMAGES
    assert len({IMAGES.digest, large.digest, at_resolution(IMAGES, 2).digest}) == 3


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("resolution", [2, 4])
def test_a_network_behind_an_average_has_the_same_curve(norm: Norm, resolution: int) -> None:
    """With the same attack, which has no random start: the same images are robust, none more and none less."""
    attack, labels = PGD(steps=15, random_start=False), IMAGES.labels
    network = Averaged(DIGITS.model, resolution).eval()
    small = IMAGES.images(torch.arange(COUNT))
    large = at_resolution(IMAGES, resolution).images(torch.arange(COUNT))
    for epsilon in (0.05, 0.1) if norm == "Linf" else (0.3, 0.6):
        base = attack.run(DIGITS.model, small, labels, Ball(norm, epsilon))
        scaled = attack.run(network, large, labels, Ball(norm, epsilon * factor(norm, resolution)))
        assert torch.equal(base.successful, scaled.successful)
        assert 0 < int(base.successful.sum()) < COUNT
