"""Detectors with a grid: boxes to cells and back, their first objectness, and what is out of range."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from jobs.common.detection.base import weights_hash
from jobs.common.detection.detectors import ARCHITECTURES, TRAINABLE
from jobs.common.detection.grid import GridDetector
from service.errors import FieldError

SIDE = 96
BUILDS = list(TRAINABLE.values())


@pytest.mark.parametrize("build", BUILDS)
def test_a_box_comes_back_from_its_cell(build: Callable[..., GridDetector]) -> None:
    detector = build(side=SIDE)
    stream = torch.Generator().manual_seed(0)
    centres = torch.rand(50, 2, generator=stream) * SIDE
    sides = 5 + 60 * torch.rand(50, 2, generator=stream)
    corners = torch.cat([centres - sides / 2, centres + sides / 2], 1)
    anchors = torch.randint(0, len(detector.anchors), (50,), generator=stream)
    rows, columns, offsets = detector.encoded(corners, anchors)
    cells = SIDE // detector.stride
    answers = torch.zeros(50, len(detector.anchors), cells, cells, 4)
    every = torch.arange(50)
    answers[every, anchors, rows, columns] = offsets
    torch.testing.assert_close(detector.decoded(answers)[every, anchors, rows, columns], corners)
    assert bool(((offsets[:, :2].abs()) <= 0.5).all()), "the cell is that of the centre"


def test_priors_are_in_their_order() -> None:
    """Answers of nothing are anchors in their cells, all cells of the first anchor before those of the second."""
    detector = TRAINABLE["two_anchors"](side=SIDE).eval()
    torch.nn.init.zeros_(detector.network[1].weight)
    with torch.no_grad():
        priors = detector.priors(torch.rand(1, 3, SIDE, SIDE))
    assert priors.corners.shape == (1, 72, 4) and priors.classes is not None and priors.objectness is not None
    # the second anchor, 24x64, in row 1 and column 4 of cells of 16 pixels
    assert priors.corners[0, 36 + 6 + 4].tolist() == [72 - 12, 24 - 32, 72 + 12, 24 + 32]
    assert bool((priors.classes == 1).all()), "the only class"
    assert torch.sigmoid(priors.objectness).flatten().tolist() == pytest.approx([0.01] * 72)


@pytest.mark.parametrize("build", BUILDS)
def test_images_of_any_size_and_unchanged_weights(build: Callable[..., GridDetector]) -> None:
    detector = build(classes=("person", "tree", "dog")).eval()
    before = weights_hash(detector)
    images = torch.rand(2, 3, 150, 70, requires_grad=True)
    priors = detector.priors(images)
    assert priors.classes is not None
    torch.testing.assert_close(priors.classes.sum(2), torch.ones(priors.classes.shape[:2]))
    priors.logits(0).sum().backward()
    assert images.grad is not None and bool((images.grad != 0).any())
    for boxes in detector.detect(images.detach(), 0.001):
        assert bool((boxes.corners[:, 2] <= 70).all()) and bool((boxes.corners[:, 3] <= 150).all())
    assert weights_hash(detector) == before
    detector.train()
    detector.network(torch.rand(2, 3, 96, 96))
    assert weights_hash(detector) != before, "the hash sees the statistics of batch norm"


def test_anchors_grow_with_the_frame() -> None:
    assert TRAINABLE["one_anchor"](side=192).anchors.tolist() == [[40, 106]]
    assert TRAINABLE["one_anchor"](side=192, anchors=[[3, 4]]).anchors.tolist() == [[3, 4]]
    wide = sum(each.numel() for each in TRAINABLE["one_anchor"](width=2.0).parameters())
    assert wide > 3 * sum(each.numel() for each in TRAINABLE["one_anchor"]().parameters())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"classes": []}, "classes must be 1 to 1,000 names, none twice"),
        ({"classes": ["a", "a"]}, "classes must be 1 to 1,000 names, none twice"),
        ({"side": 100}, "side must be a multiple of 8 up to 2,048; it is 100"),
        ({"side": 0}, "side must be a multiple of 8"),
        ({"side": 1 << 20}, "side must be a multiple of 8 up to 2,048"),
        ({"anchors": [[1, 2]] * 33}, "anchors must be 1 to 32 pairs"),
        ({"anchors": [[1, 2, 3]]}, "anchors must be pairs of a width and a height"),
        ({"anchors": [[1, -2]]}, "anchors must be pairs of a width and a height"),
        ({"anchors": [[1, float("nan")]]}, "anchors must be pairs of a width and a height"),
        ({"width": 1e9}, "channels of convolution 1 must be from 1 to 16,384"),
    ],
)
def test_a_strangers_card(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(FieldError, match=sentence):
        ARCHITECTURES["one_anchor"](**arguments)
