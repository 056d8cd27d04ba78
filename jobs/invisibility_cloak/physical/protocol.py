"""Whether a patch worked in photographs: success, partial success or failure for every person in them.

Source of the three: Wu et al. 2020, physical experiments: no box on the wearer is a success, a box that covers less
than half of the wearer a partial one, all else a failure.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from jobs.common.data.boxes.base import BoxSet
from jobs.common.detection.base import Detector
from jobs.common.detection.boxes import Boxes, covered, overlaps
from jobs.common.metrics.intervals import wilson_of_groups

Outcome = Literal["success", "partial", "failure"]
OUTCOMES: tuple[Outcome, ...] = ("success", "partial", "failure")
HALF = 0.5
"""share of a person's box below which a detector's box is a partial success"""
TOUCHED = 0.1
"""share of a person's box that a detector's box covers at least, to be one of this person"""
BATCH = 8


@dataclass(frozen=True)
class Judged:
    """A person in a photograph."""

    place: int
    """of the photograph in its set"""
    person: int
    """of the boxes of its class in the photograph"""
    outcome: Outcome
    covered: float
    """share of the person's box that the detector's box covers best; 0 if there is none"""
    score: float
    """of that box; 0 if there is none"""


def judged(persons: Tensor, found: Boxes) -> list[tuple[Outcome, float, float]]:
    """Outcome, covered share and score for each person.

    A detector's box counts for the one person with whom its intersection over union is largest, so that the box of a
    neighbour is not taken for a part of the wearer's.
    persons: (n, 4). found: boxes of their class above the confidence that counts.
    """
    results: list[tuple[Outcome, float, float]] = []
    common = overlaps(persons, found.corners)  # (n, m)
    shares = covered(persons, found.corners)
    owner = common.argmax(0) if len(persons) else torch.zeros(len(found), dtype=torch.int64)
    for person in range(len(persons)):
        own = torch.where((owner == person) & (shares[person] >= TOUCHED), shares[person], -1.0)
        if not len(found) or float(own.max()) < 0:
            results.append(("success", 0.0, 0.0))
            continue
        best = int(own.argmax())
        share = float(own[best])
        score = 1.0 if found.scores is None else float(found.scores[best])
        results.append(("partial" if share < HALF else "failure", share, score))
    return results


def judged_set(
    detector: Detector, photographs: BoxSet, class_name: str, confidence: float, batch: int = BATCH
) -> list[Judged]:
    """Every person of a set of photographs, whose boxes are the references.

    class_name: of persons, in the set and in the detector. UnknownNameError if the detector has none of that name.
    confidence: below which a box does not count.
    """
    label = detector.label_of(class_name)
    reference = photographs.classes.index(class_name)
    results: list[Judged] = []
    for first in range(0, len(photographs), batch):
        places = range(first, min(first + batch, len(photographs)))
        found = detector.detect(photographs.images(torch.tensor(places)), confidence=confidence)
        for place, boxes in zip(places, found, strict=True):
            persons = photographs.boxes(place).of(reference).corners
            for person, result in enumerate(judged(persons, boxes.of(label))):
                results.append(Judged(place, person, *result))
    return results


def rates(persons: Sequence[Judged]) -> list[dict[str, Any]]:
    """A row for each outcome: how many, their share and its 95 % interval, as persons of one photograph are alike."""
    rows = []
    for outcome in OUTCOMES:
        ended_so = [person.outcome == outcome for person in persons]
        count = sum(ended_so)
        low, high = wilson_of_groups(ended_so, [person.place for person in persons])
        share = count / len(persons) if persons else 0.0
        rows.append({"outcome": outcome, "count": count, "of": len(persons), "share": share, "low": low, "high": high})
    return rows
