"""Average precision against pycocotools on random boxes with many ties, by hand, and of nothing."""

import contextlib
import io
import math
from typing import Any

import numpy as np
import pytest
import torch

from jobs.common.detection.average_precision import THRESHOLDS, matches, measured, precisions, resampled
from jobs.common.detection.boxes import Boxes
from tests.jobs.common.detection.made import drawn, joined, moved

CLASSES = 3
EMPTY = Boxes(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0))


def images(seed: int, count: int = 12) -> tuple[list[Boxes], list[Boxes]]:
    """What was found and what is true: some images have nothing, some classes are rare."""
    stream = torch.Generator().manual_seed(seed)
    found, truth = [], []
    for number in range(count):
        true = drawn(stream, int(torch.randint(0, 7, (), generator=stream)), CLASSES, scored=False)
        truth.append(true)
        near = [moved(stream, true, CLASSES) for _ in range(2)]
        others = drawn(stream, int(torch.randint(0, 4, (), generator=stream)), CLASSES)
        found.append(EMPTY if number == 3 else joined([*near, others]))
    return found, truth


def by_pycocotools(found: list[Boxes], truth: list[Boxes], labels: int = CLASSES) -> np.ndarray:
    """The precision (thresholds, recalls, classes) of the reference, -1 where a class has no true box."""
    coco = pytest.importorskip("pycocotools.coco")
    evaluation = pytest.importorskip("pycocotools.cocoeval")

    def rows(boxes: list[Boxes], scored: bool) -> list[dict[str, Any]]:
        made = []
        for image, each in enumerate(boxes):
            for place, (left, top, right, bottom) in enumerate(each.corners.double().tolist()):
                row = {"image_id": image, "category_id": int(each.labels[place]), "iscrowd": 0, "id": len(made) + 1}
                row |= {"bbox": [left, top, right - left, bottom - top], "area": (right - left) * (bottom - top)}
                if scored:
                    assert each.scores is not None
                    row["score"] = float(each.scores[place])
                made.append(row)
        return made

    with contextlib.redirect_stdout(io.StringIO()):
        reference = coco.COCO()
        reference.dataset = {
            "info": {},
            "images": [{"id": image} for image in range(len(truth))],
            "categories": [{"id": label} for label in range(labels)],
            "annotations": rows(truth, scored=False),
        }
        reference.createIndex()
        judged = evaluation.COCOeval(reference, reference.loadRes(rows(found, scored=True)), "bbox")
        judged.evaluate()
        judged.accumulate()
    return judged.eval["precision"][:, :, :, 0, 2]  # all sizes, at most 100 boxes


@pytest.mark.parametrize("seed", range(12))
def test_against_pycocotools(seed: int) -> None:
    found, truth = images(seed)
    expected = by_pycocotools(found, truth)
    for label in range(CLASSES):
        assert precisions(matches(found, truth, label)) == pytest.approx(expected[:, :, label].mean(1), abs=1e-12)
    score = measured(found, truth, range(CLASSES))
    known = expected[:, :, expected[0, 0] >= 0]
    assert score.ap == pytest.approx(known.mean(), abs=1e-12)
    assert score.ap50 == pytest.approx(known[0].mean(), abs=1e-12)


def test_more_than_a_hundred_boxes_of_a_class_in_an_image() -> None:
    stream = torch.Generator().manual_seed(0)
    truth = [drawn(stream, 30, 1, 400, scored=False)]
    found = [joined([moved(stream, truth[0], 1, levels=400) for _ in range(6)])]
    expected = by_pycocotools(found, truth, 1)
    assert precisions(matches(found, truth, 0)) == pytest.approx(expected[:, :, 0].mean(1), abs=1e-12)


def test_by_hand() -> None:
    """Two true boxes in two images; the surest box is wrong: precision 1/2 up to a recall of 1/2, then 2/3."""
    box = torch.tensor([[0.0, 0, 10, 10]])
    label = torch.zeros(1, dtype=torch.int64)
    truth = [Boxes(box, label), Boxes(box, label)]
    found = [
        joined([Boxes(box + 50, label, torch.tensor([0.9])), Boxes(box, label, torch.tensor([0.8]))]),
        Boxes(box, label, torch.tensor([0.1])),
    ]
    assert measured(found, truth, [0]).ap50 == pytest.approx(2 / 3)
    only_one = [found[0], EMPTY]
    assert measured(only_one, truth, [0]).ap50 == pytest.approx(51 / 101 * 1 / 2), "recalls 0, .01, …, .50"


def test_nothing_found_and_nothing_true() -> None:
    _, truth = images(0)
    nothing = [EMPTY] * len(truth)
    score = measured(nothing, truth, range(CLASSES))
    assert (score.ap50, score.ap, score.ap50_low, score.ap50_high) == (0, 0, 0, 0)
    nobody = measured(images(0)[0], nothing, range(CLASSES))
    assert all(math.isnan(value) for value in (nobody.ap50, nobody.ap, nobody.ap50_low, nobody.ap50_high))
    assert measured([], [], [0]).ap50 != measured([], [], [0]).ap50, "no images at all: not a number"


def test_drawing_images_again_is_having_them_twice() -> None:
    found, truth = images(5)
    drawn_times = np.array([2, 0, 1, 1, 0, 3, 1, 1, 0, 1, 2, 0])
    places = np.repeat(np.arange(12), drawn_times)
    stream = torch.Generator().manual_seed(1)
    for each in found:  # no two scores are equal: of equal ones the order of the images decides
        assert each.scores is not None
        each.scores.add_(torch.rand(len(each), generator=stream) / 1000)
    for label in range(CLASSES):
        weighted = resampled(matches(found, truth, label), np.stack([drawn_times, np.ones(12, int)]))
        again = precisions(matches([found[place] for place in places], [truth[place] for place in places], label))
        once = precisions(matches(found, truth, label))
        assert weighted == pytest.approx([again[0], once[0]], abs=1e-12)


def test_the_interval_holds_the_value_and_is_the_same_again() -> None:
    found, truth = images(7, 40)
    score = measured(found, truth, range(CLASSES), seed=3)
    assert 0 <= score.ap50_low < score.ap50 < score.ap50_high <= 1
    assert measured(found, truth, range(CLASSES), seed=3) == score
    halves = [measured(found[:10], truth[:10], range(CLASSES)), score]
    assert halves[0].ap50_high - halves[0].ap50_low > score.ap50_high - score.ap50_low, "fewer images say less"


def test_thresholds_are_those_of_coco() -> None:
    assert THRESHOLDS.tolist() == pytest.approx([0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95])
