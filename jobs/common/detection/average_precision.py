"""Average precision of detections as COCO measures it, and its interval over images.

Source: Lin et al. 2014, "Microsoft COCO: Common objects in context", and its evaluation, pycocotools: boxes of all
sizes, no crowds. With no true box of a class its average precision is NaN; with true boxes and none found, 0.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jobs.common.detection.boxes import Boxes, overlaps
from jobs.common.metrics.intervals import bootstrap_interval

THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""of the intersection over union from which a box is right; COCO's AP is the mean over all, its AP50 of the first"""
RECALLS = np.linspace(0, 1, 101)
MOST = 100
"""boxes of a class in an image that count, the surest"""
NEARLY = 1 - 1e-10
"""of a threshold, above which rounding would decide"""


@dataclass(frozen=True)
class Matches:
    """Which of the boxes of a class that were found are right, the surest first; of equal ones the earlier image's."""

    scores: np.ndarray
    """float64 (found,)"""
    right: np.ndarray
    """bool (thresholds, found): whether the box is the one of a true box"""
    images: np.ndarray
    """int64 (found,): the number of the image"""
    truths: np.ndarray
    """int64 (images,): true boxes of the class in each"""


@dataclass(frozen=True)
class AveragePrecision:
    """Of one class, or the mean over classes, in [0, 1]; NaN where there is no true box."""

    ap50: float
    ap50_low: float
    ap50_high: float
    """95 % interval over images"""
    ap: float
    """the mean over the thresholds of the intersection over union, .50 to .95"""


def measured(found: Sequence[Boxes], truth: Sequence[Boxes], labels: Sequence[int], seed: int = 0) -> AveragePrecision:
    """Average precision of classes, the mean over those that the truth has.

    found: of each image, with scores. truth: of each image. labels: of the classes. seed: of the interval.
    """
    classes = [each for each in (matches(found, truth, label) for label in labels) if each.truths.any()]
    if not classes:
        return AveragePrecision(math.nan, math.nan, math.nan, math.nan)

    def ap50(drawn: np.ndarray) -> np.ndarray:
        values = np.stack([resampled(each, drawn) for each in classes])  # (classes, draws)
        known = ~np.isnan(values)
        counts = known.sum(0)
        means = np.full(len(drawn), math.nan)
        np.divide(np.where(known, values, 0).sum(0), counts, out=means, where=counts > 0)
        return means

    whole = np.stack([precisions(each) for each in classes])
    low, high = bootstrap_interval(ap50, len(truth), seed)
    return AveragePrecision(float(whole[:, 0].mean()), low, high, float(whole.mean()))


def matches(
    found: Sequence[Boxes],
    truth: Sequence[Boxes],
    label: int,
    thresholds: np.ndarray = THRESHOLDS,
    most: int = MOST,
) -> Matches:
    """Which boxes of a class are right. found: of each image, with scores. truth: of each image."""
    scores, right, images = [], [], []
    truths = np.zeros(len(truth), np.int64)
    for number, (boxes, true) in enumerate(zip(found, truth, strict=True)):
        true = true.of(label)
        ordered = surest_first(boxes.of(label), most)
        assert ordered.scores is not None
        truths[number] = len(true)
        scores.append(ordered.scores.double().cpu().numpy())
        right.append(owners(ordered, true, thresholds) >= 0)
        images.append(np.full(len(ordered), number))
    confident = np.concatenate([np.zeros(0), *scores])
    order = np.argsort(-confident, kind="stable")
    correct = np.concatenate([np.zeros((len(thresholds), 0), bool), *right], 1)
    numbers = np.concatenate([np.zeros(0, np.int64), *images])
    return Matches(confident[order], correct[:, order], numbers[order], truths)


def surest_first(boxes: Boxes, most: int | None = None) -> Boxes:
    """Boxes by their scores; equal ones stay in order. most: that are kept; None: all."""
    assert boxes.scores is not None
    return boxes.at(boxes.scores.argsort(descending=True, stable=True)[:most])


def owners(found: Boxes, truth: Boxes, thresholds: np.ndarray) -> np.ndarray:
    """Which true box each found one is of: int64 (thresholds, found), -1 where none.

    The surest comes first and takes the true box that it overlaps most, of those that are not taken; ties: the last.
    found: of one class, the surest first. truth: of the same class.
    """
    taken = np.zeros((len(thresholds), len(truth)), bool)
    owner = np.full((len(thresholds), len(found)), -1)
    if not len(truth) or not len(found):
        return owner
    overlap = overlaps(found.corners.double(), truth.corners.double()).cpu().numpy()
    least = np.minimum(thresholds, NEARLY)
    every = np.arange(len(thresholds))
    for place in np.flatnonzero(overlap.max(1) >= least.min()):
        free = np.where(taken, -1.0, overlap[place])  # (thresholds, truths)
        best = len(truth) - 1 - free[:, ::-1].argmax(1)
        is_right = free[every, best] >= least
        owner[is_right, place] = best[is_right]
        taken[every[is_right], best[is_right]] = True
    return owner


def precisions(found: Matches, thresholds: int | None = None) -> np.ndarray:
    """The mean precision at 101 recalls from 0 to 1, at each threshold: float64 (thresholds,), NaN without true boxes.

    thresholds: how many of them; None: all.
    """
    right = found.right[:thresholds]
    return _precisions(right, np.ones(right.shape), np.full(len(right), found.truths.sum()))


def resampled(found: Matches, drawn: np.ndarray) -> np.ndarray:
    """The same at the first threshold, of images that count several times or not at all: float64 (draws,).

    drawn: how often each image counts, int64 (draws, images).
    """
    return _precisions(found.right[:1], drawn[:, found.images].astype(float), drawn @ found.truths)


def _precisions(right: np.ndarray, times: np.ndarray, truths: np.ndarray) -> np.ndarray:
    """right: bool (n, found) or (1, found). times: how often each box counts, (n, found). truths: (n,)."""
    hits = np.cumsum(right * times, 1)  # (n, found)
    precision = hits / np.maximum(np.cumsum(times, 1), 1)
    precision = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]  # the best at this recall or a higher one
    padded = np.append(precision, np.zeros((len(precision), 1)), 1)  # of recalls that are not reached
    return np.array(
        [
            row[np.searchsorted(reached / count, RECALLS)].mean() if count else math.nan
            for row, reached, count in zip(padded, hits, truths.tolist(), strict=True)
        ]
    )
