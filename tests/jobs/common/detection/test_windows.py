"""Detectors that look again at windows alone: the priors and gradients of the whole pass."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from jobs.common.detection.base import Detector
from jobs.common.detection.detectors.one_anchor import one_anchor
from jobs.common.detection.detectors.two_anchors import two_anchors
from jobs.common.detection.folding import folded
from jobs.common.detection.grid import GridDetector
from jobs.common.detection.windows import WindowedDetector, windowed

WINDOWS = torch.tensor([[0.0, 3.0, 14.0, 12.0], [40.5, 50.2, 52.0, 70.0], [-5.0, 60.0, 9.0, 99.0], [0.0] * 4])


def changed(images: Tensor) -> Tensor:
    """Images that differ in their windows alone."""
    different = images.clone()
    for image, (left, top, right, bottom) in zip(different, WINDOWS.clamp_min(0).round().long().tolist(), strict=True):
        window = image[:, top:bottom, left:right]
        window.copy_(torch.rand(window.shape))
    return different


def nested() -> GridDetector:
    detector = one_anchor()
    body = detector.first_layers()
    assert body is not None
    detector.network[0] = nn.Sequential(body[:3], *body[3:])
    return detector


@pytest.mark.parametrize(
    ("build", "side", "layers"),
    [(one_anchor, 96, 1), (one_anchor, 96, 7), (two_anchors, 96, 8), (one_anchor, 72, 4), (nested, 72, 5)],
)
def test_windows_answer_as_the_whole(build: Callable[[], Detector], side: int, layers: int) -> None:
    """Also of images that are resized: their frames have 96 pixels."""
    torch.manual_seed(0)
    images = torch.rand(4, 3, side, side)
    changed_images = changed(images)
    whole, parts = (folded(each) for each in [build()] * 2)
    first = parts.first_layers()
    assert first is not None
    view = WindowedDetector(parts, first, layers)
    gradients = []
    for answer in (whole.priors, lambda each: view.priors(each, images, list(range(4)), WINDOWS)):
        given = changed_images.clone().requires_grad_()
        priors = answer(given)
        gradients.append((priors.logits(0), torch.autograd.grad(priors.logits(0).square().sum(), given)[0]))
    (logits, slopes), (others, part) = ([each.detach() for each in pair] for pair in gradients)
    assert torch.allclose(logits, others, atol=1e-4 * float(logits.abs().max()))
    for image, one, other in zip(WINDOWS.clamp(0, side).long().tolist(), slopes, part, strict=True):
        left, top, right, bottom = image
        window = slice(None), slice(top, bottom), slice(left, right)
        assert torch.allclose(one[window], other[window], atol=1e-4 * float(slopes.abs().max()))
    assert torch.equal(parts.priors(images).logits(0), whole.priors(images).logits(0)), "asked without windows"


def test_images_are_known_again() -> None:
    """The second pass reads nothing of the images as they were."""
    detector = folded(one_anchor())
    first = detector.first_layers()
    assert first is not None
    images, view = torch.rand(4, 3, 96, 96), WindowedDetector(detector, first, 4)
    different = changed(images)
    once = view.priors(different, images, [0, 1, 2, 3], WINDOWS)
    again = view.priors(different, torch.full_like(images, torch.nan), [0, 1, 2, 3], WINDOWS)
    assert torch.equal(once.logits(0), again.logits(0))


def test_windows_are_left_where_they_save_little() -> None:
    images, small, large = (
        torch.rand(1, 3, 96, 96),
        torch.tensor([[40.0, 40, 56, 60]]),
        torch.tensor([[4.0, 4, 90, 96]]),
    )
    assert windowed(folded(one_anchor()), small, images, 16) is not None
    assert windowed(folded(one_anchor()), large, images, 16) is None
    assert windowed(folded(one_anchor()), small, images, 10_000_000) is None, "too much to keep"

    class Other(Detector):
        name, classes, substitute, side = "other", ("person",), None, 96

        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Conv2d(3, 1, 1)

        def priors(self, images: Tensor):  # type: ignore[no-untyped-def]
            raise NotImplementedError

    assert windowed(folded(Other()), small, images, 1) is None
