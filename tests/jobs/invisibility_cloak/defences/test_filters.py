"""Filters against scipy and by hand, and what a gradient through them is."""

import numpy as np
import pytest
import torch
from scipy.ndimage import median_filter

from jobs.invisibility_cloak.defences.filters import GradientSmoothing, MedianFilter
from jobs.invisibility_cloak.defences.purified import Purified
from tests.jobs.invisibility_cloak.defences.detectors import WhiteFinder


@pytest.mark.parametrize("window", [3, 5])
def test_the_median_is_that_of_scipy(window: int) -> None:
    images = torch.rand(2, 3, 17, 13)
    expected = median_filter(images.numpy(), (1, 1, window, window), mode="mirror")
    assert np.array_equal(MedianFilter(window)(images).numpy(), expected)


def test_the_gradient_of_a_median_goes_to_one_pixel() -> None:
    images = torch.rand(1, 3, 9, 9).double().requires_grad_()
    assert torch.autograd.gradcheck(MedianFilter(3), (images,))


def test_fine_patterns_are_darkened_and_smooth_ones_are_left() -> None:
    images = torch.linspace(0.2, 0.8, 60).expand(1, 3, 60, 60).clone()
    images[..., 20:40, 20:40] = torch.rand(1, 3, 20, 20, generator=torch.Generator().manual_seed(0))
    seen = GradientSmoothing(15, 0.1, 2.3)(images)
    inside, outside = seen[..., 22:38, 22:38], torch.cat([seen[..., :5], seen[..., -5:]], 3)
    assert float(inside.mean()) < 0.75 * float(images[..., 22:38, 22:38].mean())
    assert torch.equal(outside, torch.cat([images[..., :5], images[..., -5:]], 3))
    blank = torch.full((1, 3, 20, 20), 0.4)
    assert torch.allclose(GradientSmoothing(15, 0.1, 2.3)(blank), blank)


def test_an_attack_reaches_the_images_through_a_defence() -> None:
    for purify in (MedianFilter(3), GradientSmoothing(15, 0.1, 2.3)):
        defended = Purified(WhiteFinder(), purify, "filter")
        images = torch.rand(1, 3, 12, 12).requires_grad_()
        defended.priors(images).logits(0).sum().backward()  # type: ignore[no-untyped-call]
        assert images.grad is not None and float(images.grad.abs().sum()) > 0
    assert defended.name == "white_finder_filter" and defended.classes == ("white", "other")
