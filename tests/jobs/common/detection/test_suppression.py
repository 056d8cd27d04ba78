"""Which boxes are left: against a plain loop over all of them, and what is damaged or out of range."""

import pytest
import torch
from torch import Tensor

from jobs.common.detection.suppression import CANDIDATES, clipped, kept, surest
from service.errors import FieldError
from tests.jobs.common.detection.made import drawn, overlap

HEIGHT, WIDTH = 30, 24


def by_hand(
    corners: Tensor, scores: Tensor, confidence: float, least: float, most: int
) -> list[tuple[list[float], int, float]]:
    """Of one image: all pairs of a place and a class, the surest first; each drops those of its class it covers."""
    pairs = []
    for place, row in enumerate(scores.tolist()):
        left, top, right, bottom = corners[place].tolist()
        box = [
            min(max(left, 0), WIDTH),
            min(max(top, 0), HEIGHT),
            min(max(right, 0), WIDTH),
            min(max(bottom, 0), HEIGHT),
        ]
        if (box[2] - box[0]) * (box[3] - box[1]) > 0:
            pairs += [(box, label, score) for label, score in enumerate(row) if score >= confidence]
    pairs.sort(key=lambda pair: -pair[2])
    left_over: list[tuple[list[float], int, float]] = []
    for box, label, score in pairs:
        if all(label != other or overlap(box, theirs) <= least for theirs, other, _ in left_over):
            left_over.append((box, label, score))
    return left_over[:most]


@pytest.mark.parametrize("seed", range(20))
def test_against_a_plain_loop(seed: int) -> None:
    stream = torch.Generator().manual_seed(seed)
    corners = torch.stack([drawn(stream, 60, 1).corners - 4 for _ in range(2)])
    scores = torch.randint(0, 12, (2, 60, 3), generator=stream).float() / 12
    most = 7 if seed % 2 else 300
    found = surest(corners, scores, (HEIGHT, WIDTH), 0.3, 0.45, most)
    for image, boxes in enumerate(found):
        expected = by_hand(corners[image], scores[image], 0.3, 0.45, most)
        assert boxes.scores is not None
        assert [(a, b) for _, a, b in expected] == pytest.approx(
            list(zip(boxes.labels.tolist(), boxes.scores.tolist(), strict=True))
        )
        assert boxes.corners.tolist() == [box for box, _, _ in expected]


def test_boxes_of_each_class() -> None:
    """Two-stage detectors have a box of each class at a place."""
    corners = torch.tensor([[[[0.0, 0, 10, 10], [5, 5, 20, 20]], [[0, 0, 10, 9], [50, 50, 60, 60]]]])
    scores = torch.tensor([[[0.9, 0.8], [0.7, 0.6]]])
    (boxes,) = surest(corners, scores, (HEIGHT, WIDTH), 0.5, 0.5, 10)
    assert boxes.corners.tolist() == [[0, 0, 10, 10], [5, 5, 20, 20]]
    assert boxes.labels.tolist() == [0, 1], "the second of class 0 is covered, that of class 1 lies outside"


def test_what_is_no_number_is_dropped() -> None:
    corners = torch.tensor([[[torch.nan, 0, 5, 5], [0, 0, torch.inf, 5], [1, 1, 1, 5], [0, 0, 5, 5]]])
    scores = torch.tensor([[[0.9], [0.8], [0.7], [torch.nan]]])
    (boxes,) = surest(corners, scores, (HEIGHT, WIDTH), 0.1, 0.5, 10)
    assert boxes.corners.tolist() == [[0, 0, WIDTH, 5]]


def test_nothing_is_found() -> None:
    (boxes,) = surest(torch.zeros(1, 0, 4), torch.zeros(1, 0, 2), (HEIGHT, WIDTH), 0.1, 0.5, 10)
    assert len(boxes) == 0 and boxes.corners.shape == (0, 4) and boxes.scores is not None


def test_a_flood_of_sure_boxes_is_bounded() -> None:
    """All places sure of all classes: an attack can do that."""
    corners = torch.rand(1, 4000, 4) * 10
    corners[..., 2:] += 10
    (boxes,) = surest(corners, torch.rand(1, 4000, 80) / 10 + 0.9, (HEIGHT, WIDTH), 0.1, 1.0, 10**6)
    assert len(boxes) == CANDIDATES


def test_classes_never_meet_however_far_away() -> None:
    corners = torch.tensor([[-1e6, 0, 1e6, 1], [-1e6, 0, 1e6, 1], [-1e6, 0, 1e6, 1]])
    places = kept(corners, torch.tensor([0.3, 0.2, 0.1]), torch.tensor([0, 79, 0]), 0.5)
    assert places.tolist() == [0, 1]


def test_clipping_keeps_what_is_inside() -> None:
    corners = torch.tensor([[-3.0, 2, 400, 5], [1, 2, 3, 4]])
    assert clipped(corners, (HEIGHT, WIDTH)).tolist() == [[0, 2, WIDTH, 5], [1, 2, 3, 4]]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ((0.0, 0.5, 1), "confidence must be above 0 and below 1; it is 0"),
        ((1.0, 0.5, 1), "confidence must be above 0 and below 1; it is 1"),
        ((float("nan"), 0.5, 1), "confidence must be above 0"),
        ((0.5, 0.0, 1), "overlap must be above 0 and at most 1; it is 0"),
        ((0.5, 0.5, 0), "most must be at least 1; it is 0"),
    ],
)
def test_out_of_range(options: tuple[float, float, int], sentence: str) -> None:
    with pytest.raises(FieldError, match=sentence):
        surest(torch.zeros(1, 1, 4), torch.zeros(1, 1, 1), (HEIGHT, WIDTH), *options)
