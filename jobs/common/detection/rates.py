"""What becomes of objects and boxes at one confidence: recall, the success of an attack, what is hidden or made up.

A true box is *found* if a box of its class is its own: of all boxes of at least the confidence the surest comes first
and takes the true box that it overlaps most, of those not taken, if their intersection over union reaches a bound. Each
true box has one fate: it is found, *misclassified* (not found, but a box of another class overlaps it as much) or has
*disappeared*. A box is a *false positive* if it is no true box's own, and a *hallucination* if it overlaps no true box
of any class as much as the bound. Rates of true boxes are shares of all of them, pooled over images.

Sources: the disappearance, misclassification and hallucination rates of the armory library's object detection metrics,
which averages them over images and lets a box be of several true ones; Bolya et al. 2020, "TIDE: A general toolbox for
identifying object detection errors", whose background errors are hallucinations up to an overlap of 0.1.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jobs.common.detection.average_precision import owners, surest_first
from jobs.common.detection.boxes import Boxes, overlaps
from jobs.common.metrics.intervals import bootstrap_interval

OVERLAP = 0.5


@dataclass(frozen=True)
class Fates:
    """What became of the true boxes of a class, and which boxes were found besides, image by image."""

    found: tuple[np.ndarray, ...]
    """bool (truths,) of each image: whether a true box is found"""
    misclassified: tuple[np.ndarray, ...]
    """bool (truths,) of each image"""
    false_positives: np.ndarray
    """int64 (images,): boxes of the class that are no true box's own"""
    hallucinations: np.ndarray
    """int64 (images,): boxes of the class where nothing is"""


@dataclass(frozen=True)
class Rates:
    """Shares in [0, 1], NaN without true boxes; false_positives and hallucinations in boxes an image."""

    recall: float
    misclassified: float
    disappeared: float
    false_positives: float
    hallucinations: float


@dataclass(frozen=True)
class Share:
    """A share of true boxes with its 95 % interval over images; all NaN if there are none."""

    value: float
    low: float
    high: float
    of: int
    """true boxes"""


def fates(
    found: Sequence[Boxes], truth: Sequence[Boxes], label: int, confidence: float = 0.5, overlap: float = OVERLAP
) -> Fates:
    """What became of the true boxes of a class.

    found: of each image, with scores. truth: of each image, all classes. label: of the class. confidence: below which
    a box does not count. overlap: the least intersection over union of a box and its object.
    """
    hits, mistaken, false_positives, hallucinations = [], [], [], []
    for boxes, true in zip(found, truth, strict=True):
        assert boxes.scores is not None
        sure = boxes.at(boxes.scores >= confidence)
        ours, others = surest_first(sure.of(label)), sure.at(sure.labels != label)
        objects = true.of(label)
        (owner,) = owners(ours, objects, np.array([overlap]))
        is_found = np.zeros(len(objects), bool)
        is_found[owner[owner >= 0]] = True
        hits.append(is_found)
        mistaken.append(~is_found & _reached(objects, others, overlap))
        false_positives.append(int((owner < 0).sum()))
        hallucinations.append(int((~_reached(ours, true, overlap)).sum()))
    return Fates(tuple(hits), tuple(mistaken), np.array(false_positives, int), np.array(hallucinations, int))


def rates(fate: Fates) -> Rates:
    """The rates of fates."""
    count, images = sum(map(len, fate.found)), len(fate.found)
    found, mistaken = (sum(int(each.sum()) for each in part) for part in (fate.found, fate.misclassified))
    recall, misclassified, disappeared = (
        part / count if count else math.nan for part in (found, mistaken, count - found - mistaken)
    )
    false_positives, hallucinations = (
        float(part.sum()) / images if images else math.nan for part in (fate.false_positives, fate.hallucinations)
    )
    return Rates(recall, misclassified, disappeared, false_positives, hallucinations)


def recall(fate: Fates, seed: int = 0) -> Share:
    """The share of true boxes that are found. seed: of the interval."""
    return _share([each.sum() for each in fate.found], [len(each) for each in fate.found], seed)


def attack_success(clean: Fates, attacked: Fates, seed: int = 0) -> Share:
    """Of the true boxes that were found on clean images, the share that is not found on the attacked ones.

    clean, attacked: fates of the same true boxes, image by image. seed: of the interval.
    """
    lost = [(before & ~after).sum() for before, after in zip(clean.found, attacked.found, strict=True)]
    return _share(lost, [before.sum() for before in clean.found], seed)


def _reached(ours: Boxes, theirs: Boxes, overlap: float) -> np.ndarray:
    """bool (ours,): whether a box overlaps any of the others as much."""
    if not len(theirs):
        return np.zeros(len(ours), bool)
    most: np.ndarray = overlaps(ours.corners.double(), theirs.corners.double()).amax(1).cpu().numpy()
    return most >= overlap


def _share(numerators: Sequence[int], denominators: Sequence[int], seed: int) -> Share:
    """A share of what the images hold together."""
    above, below = np.array(numerators, int), np.array(denominators, int)

    def ratio(drawn: np.ndarray) -> np.ndarray:
        counts = (drawn @ below).astype(float)
        shares = np.full(len(drawn), math.nan)
        np.divide(drawn @ above, counts, out=shares, where=counts > 0)
        return shares

    low, high = bootstrap_interval(ratio, len(below), seed)
    return Share(float(ratio(np.ones((1, len(below)), int))[0]), low, high, int(below.sum()))
