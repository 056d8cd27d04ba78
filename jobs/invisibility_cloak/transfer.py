"""The transfer matrix: every patch and every control on every detector and every set of images."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from jobs.common.data.boxes.base import BoxSet
from jobs.common.detection import average_precision, rates
from jobs.common.detection.base import Detector
from jobs.common.detection.boxes import Boxes, overlaps
from jobs.common.detection.folding import folded
from jobs.invisibility_cloak.making import MatrixRow
from jobs.invisibility_cloak.params import CLEAN, EvaluationParams, Params
from jobs.invisibility_cloak.patch.rendering import render
from jobs.invisibility_cloak.patch.rendering_params import RenderingParams
from jobs.invisibility_cloak.patch.search import seed_at
from jobs.invisibility_cloak.patch.targets import REASONS, Targets, targets_of
from jobs.invisibility_cloak.physical.rephotograph import Reproduction
from service.run import Run, reserved_device

TOUCHING = 0.1  # intersection over union from which a box lies on somebody

Key = tuple[str, str, str]
"""names of a row, of a victim and of a set"""


@dataclass(frozen=True)
class Found:
    """What a victim finds in a set of images on which something is drawn."""

    boxes: list[Boxes]
    """of each image, with the labels of the set; classes that it has not follow those that it has"""
    drawn: int
    """boxes on which something is drawn"""
    skipped: tuple[int, ...]
    """boxes of the class on which nothing could be drawn, by the reason"""


@dataclass(frozen=True)
class TransferTest:
    """All that is tested, and on what."""

    rows: Sequence[MatrixRow]
    victims: Mapping[str, Detector]
    sets: Mapping[str, BoxSet]
    hidden: str
    rendering: RenderingParams
    evaluation: EvaluationParams
    reproduction: Reproduction = Reproduction()


def found_of(test: TransferTest, run: Run) -> dict[Key, Found]:
    """What is found in each cell of the matrix; without cells that failed."""
    keys = [(row.name, victim, data) for data in test.sets for victim in test.victims for row in test.rows]
    cells = [
        {"row": row, "victim": victim, "data": data, "seed": run.seed_for("test", data)} for row, victim, data in keys
    ]
    results = run.map(detection_cell, cells, shared=test, name="matrix")
    return {key: unpacked(result) for key, result in zip(keys, results, strict=True) if result is not None}


def detection_cell(cell: dict[str, Any], test: TransferTest) -> dict[str, Any]:
    """What one victim finds in one set of images with one row drawn on them."""
    pixels = next(row.pixels for row in test.rows if row.name == cell["row"])
    detector, images = folded(test.victims[cell["victim"]], reserved_device()), test.sets[cell["data"]]
    found: list[Boxes] = []
    drawn, skipped = 0, [0] * len(REASONS)
    for number, places in enumerate(torch.split(torch.arange(len(images)), test.evaluation.batch)):
        shown = images.images(places).to(reserved_device())
        generator = torch.Generator().manual_seed(seed_at(cell["seed"], "draws", number))
        if pixels is not None:
            targets = targets_on(test, detector, images, places, shown)
            random = generator if test.evaluation.random_rendering else None
            with torch.no_grad():
                printed = test.reproduction.printed(pixels.to(shown.device))
                shown = render(printed, shown, targets, test.rendering, random)
            drawn += len(targets)
            skipped = [one + other for one, other in zip(skipped, targets.skipped, strict=True)]
        shown = test.reproduction.photographed(shown, generator)
        found += detector.detect(shown, test.evaluation.floor)
    labels = labels_by(detector.classes, images.classes)
    return packed(
        [Boxes(each.corners.cpu(), labels[each.labels.cpu()], _scores(each)) for each in found], drawn, skipped
    )


def targets_on(test: TransferTest, detector: Detector, images: BoxSet, places: Tensor, shown: Tensor) -> Targets:
    """The boxes of some images that patches are drawn on: those of the data, or those that the victim finds.

    shown: the images, (batch, 3, height, width).
    """
    if test.evaluation.drawn_on == "truth":
        boxes = [images.boxes(place) for place in places.tolist()]
        label = images.classes.index(test.hidden)
    else:
        boxes = [
            Boxes(each.corners.cpu(), each.labels.cpu()) for each in detector.detect(shown, test.evaluation.confidence)
        ]
        label = detector.label_of(test.hidden)
    size = (shown.shape[2], shown.shape[3])
    return targets_of(boxes, label, size, test.rendering.smallest, test.rendering.most)


def labels_by(ours: Sequence[str], theirs: Sequence[str]) -> Tensor:
    """The labels of classes in a set that numbers them otherwise: int64 (ours,). Those it has not follow its own."""
    return torch.tensor(
        [theirs.index(name) if name in theirs else len(theirs) + place for place, name in enumerate(ours)]
    )


def _scores(boxes: Boxes) -> Tensor:
    assert boxes.scores is not None
    return boxes.scores.cpu()


def packed(boxes: Sequence[Boxes], drawn: int, skipped: Sequence[int]) -> dict[str, Any]:
    """As a cell may give it back."""
    return {
        "corners": torch.cat([torch.empty(0, 4), *(each.corners.float() for each in boxes)]),
        "labels": torch.cat([torch.empty(0, dtype=torch.int64), *(each.labels for each in boxes)]),
        "scores": torch.cat([torch.empty(0), *(_scores(each).float() for each in boxes)]),
        "counts": [len(each) for each in boxes],
        "drawn": drawn,
        "skipped": list(skipped),
    }


def unpacked(result: Mapping[str, Any]) -> Found:
    """Undoes `packed`."""
    parts = zip(*(torch.split(result[name], result["counts"]) for name in ("corners", "labels", "scores")), strict=True)
    return Found([Boxes(*part) for part in parts], int(result["drawn"]), tuple(result["skipped"]))


def measured(params: Params, test: TransferTest, found: Mapping[Key, Found], run: Run) -> list[dict[str, Any]]:
    """A row of the table for each cell of the matrix: how well the class is detected, with 95 % intervals over images.

    Victims without a clean cell are left out: there is nothing to compare with.
    """
    cells = [
        {"victim": victim, "data": data, "seed": run.seed_for("intervals", data)}
        for data in test.sets
        for victim in test.victims
        if (CLEAN, victim, data) in found
    ]
    truths = {name: [data.boxes(place) for place in range(len(data))] for name, data in test.sets.items()}
    hidden = {name: data.classes.index(test.hidden) for name, data in test.sets.items()}
    shared = (found, truths, hidden, [row.name for row in test.rows], test.evaluation.confidence)
    results = run.map(measuring_cell, cells, shared=shared, name="measures")
    known = {row.name: {"patch": row.name, "kind": row.kind, "against": ", ".join(row.against)} for row in test.rows}
    return [
        {**known[name], "victim": cell["victim"], "data": cell["data"], **measures}
        for cell, result in zip(cells, results, strict=True)
        if result is not None
        for name, measures in result.items()
    ]


def measuring_cell(cell: dict[str, Any], shared: Any) -> dict[str, dict[str, Any]]:
    """The measures of each row, by its name, on one victim and one set."""
    every, truths, hidden, names, confidence = shared
    truth, label = truths[cell["data"]], hidden[cell["data"]]
    clean = rates.fates(every[CLEAN, cell["victim"], cell["data"]].boxes, truth, label, confidence)
    of_victim = {name: every.get((name, cell["victim"], cell["data"])) for name in names}
    return {
        name: measures_of(found, truth, label, confidence, clean, cell["seed"])
        for name, found in of_victim.items()
        if found is not None
    }


def measures_of(
    found: Found, truth: Sequence[Boxes], label: int, confidence: float, clean: rates.Fates, seed: int
) -> dict[str, Any]:
    """How well a class is detected; None where there is nothing to measure.

    label: of the class in the set. clean: what became of it without a patch.
    """
    precision = average_precision.measured(found.boxes, truth, [label], seed)
    fates = rates.fates(found.boxes, truth, label, confidence)
    recall, success = rates.recall(fates, seed), rates.attack_success(clean, fates, seed)
    other = rates.rates(fates)
    counts = {"boxes": recall.of, "drawn": found.drawn, "skipped": sum(found.skipped)}
    values = {
        "ap50": precision.ap50,
        "ap50_low": precision.ap50_low,
        "ap50_high": precision.ap50_high,
        "ap": precision.ap,
        "recall": recall.value,
        "recall_low": recall.low,
        "recall_high": recall.high,
        "success": success.value,
        "success_low": success.low,
        "success_high": success.high,
        "displaced": displaced(found.boxes, truth, label, confidence, fates),
        "misclassified": other.misclassified,
        "disappeared": other.disappeared,
        "false_positives": other.false_positives,
        "hallucinations": other.hallucinations,
    }
    return {**counts, **{name: None if math.isnan(value) else value for name, value in values.items()}}


def displaced(
    found: Sequence[Boxes], truth: Sequence[Boxes], label: int, confidence: float, fates: rates.Fates
) -> float:
    """The share of people who are not found, but on whom a box of the class lies that does not fit; NaN without people.

    They are not hidden from whoever only asks whether anybody is there: protocols of printed patches call this a
    partial success. fates: what became of them.
    """
    beside, count = 0, 0
    for boxes, true, is_found in zip(found, truth, fates.found, strict=True):
        own, sure = true.of(label), boxes.of(label)
        assert sure.scores is not None
        sure = sure.at(sure.scores >= confidence)
        count += len(own)
        if len(own) and len(sure):
            touched = overlaps(own.corners, sure.corners).amax(1) >= TOUCHING
            beside += int((touched.numpy() & ~is_found).sum())
    return beside / count if count else math.nan
