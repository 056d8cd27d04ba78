"""What becomes of objects: by hand, by a search over all pairings, and with nothing there."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from jobs.common.detection.boxes import Boxes
from jobs.common.detection.rates import Fates, attack_success, fates, rates, recall
from tests.jobs.common.detection.made import drawn, joined, moved, overlap

EMPTY = Boxes(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0))


def boxes(*rows: tuple[float, float, float, float, int, float]) -> Boxes:
    """left, top, right, bottom, label, score each."""
    table = torch.tensor(rows)
    return Boxes(table[:, :4], table[:, 4].long(), table[:, 5])


TRUTH = [boxes((0, 0, 10, 10, 0, 1), (20, 0, 30, 10, 0, 1), (40, 0, 50, 10, 1, 1), (60, 0, 70, 10, 0, 1))]
FOUND = [
    boxes(
        (0, 0, 10, 11, 0, 0.9),  # finds the first
        (0, 0, 10, 10, 0, 0.8),  # a second box on it: a false positive, no hallucination
        (20, 0, 30, 10, 1, 0.7),  # takes the second for another class
        (40, 0, 50, 10, 0, 0.6),  # class 0 on an object of class 1: a false positive, no hallucination
        (80, 0, 90, 10, 0, 0.9),  # nothing is there
        (60, 0, 70, 10, 0, 0.3),  # the last, unsure
    )
]


def test_by_hand() -> None:
    fate = rates(fates(FOUND, TRUTH, 0, 0.5))
    assert (fate.recall, fate.misclassified, fate.disappeared) == pytest.approx((1 / 3, 1 / 3, 1 / 3))
    assert (fate.false_positives, fate.hallucinations) == (3, 1)
    less = rates(fates(FOUND, TRUTH, 0, 0.3))
    assert (less.recall, less.disappeared) == (pytest.approx(2 / 3), 0), "a confidence is the least that counts"
    other = rates(fates(FOUND, TRUTH, 1, 0.5))
    assert (other.recall, other.misclassified, other.disappeared) == (0, 1, 0)


@pytest.mark.parametrize("seed", range(10))
def test_one_box_for_one_object(seed: int) -> None:
    """No pairing of boxes and objects finds more objects than twice those found, and each count adds up."""
    stream = torch.Generator().manual_seed(seed)
    truth = [drawn(stream, 4, 2, scored=False) for _ in range(3)]
    found = [joined([moved(stream, each, 2, 2), drawn(stream, 2, 2)]) for each in truth]
    for label in (0, 1):
        fate = fates(found, truth, label, 0.4)
        for image in range(3):
            assert found[image].scores is not None
            sure = found[image].at(found[image].scores >= 0.4).of(label)
            objects = truth[image].of(label).corners.tolist()
            pairs = [[overlap(ours, theirs) >= 0.5 for theirs in objects] for ours in sure.corners.tolist()]
            table = np.array(pairs, int).reshape(len(sure), len(objects))
            best = table[linear_sum_assignment(table, maximize=True)].sum()
            hits = int(fate.found[image].sum())
            assert best / 2 <= hits <= best
            assert fate.false_positives[image] == len(sure) - hits
            assert not bool((fate.found[image] & fate.misclassified[image]).any())
        shares = rates(fate)
        if not math.isnan(shares.recall):
            assert shares.recall + shares.misclassified + shares.disappeared == pytest.approx(1)
            assert recall(fate).value == pytest.approx(shares.recall)


def test_success_counts_only_what_was_found_before() -> None:
    clean = fates(FOUND + TRUTH, TRUTH + TRUTH, 0, 0.5)  # one of three, then all three
    attacked = fates([EMPTY, FOUND[0]], TRUTH + TRUTH, 0, 0.5)  # none, then one of three
    share = attack_success(clean, attacked)
    assert share.of == 4 and share.value == pytest.approx(3 / 4)
    assert share.low <= share.value <= share.high
    assert attack_success(clean, clean).value == 0 and attack_success(attacked, clean).value == 0


def test_nothing_found_and_nothing_true() -> None:
    nothing = rates(fates([EMPTY], TRUTH, 0))
    assert (nothing.recall, nothing.disappeared, nothing.false_positives) == (0, 1, 0)
    empty = rates(fates(FOUND, [EMPTY], 0, 0.5))
    assert math.isnan(empty.recall) and math.isnan(empty.disappeared)
    assert (empty.false_positives, empty.hallucinations) == (4, 4)
    unseen = fates([EMPTY], TRUTH, 0)
    share = attack_success(unseen, unseen)
    assert share.of == 0 and all(math.isnan(value) for value in (share.value, share.low, share.high))


def test_the_interval_is_over_images() -> None:
    """Images in which all is lost or nothing is: objects of one image are not drawn apart."""
    lost = tuple(np.full(10, place % 2 == 0) for place in range(40))
    zero = np.zeros(40, int)
    fate = Fates(lost, tuple(np.zeros(10, bool) for _ in lost), zero, zero)
    share = recall(fate, seed=1)
    assert share.value == 0.5 and share.of == 400
    error = math.sqrt(0.25 / 40)  # as of 40 draws, not of 400
    assert (share.high - share.low) / 2 == pytest.approx(1.96 * error, rel=0.15)
    assert recall(fate, seed=1) == share
