"""The curves of a run: a cell for each point, patch and detector, with 95 % intervals over images."""

from typing import Any

import torch

from jobs.common.detection import average_precision, rates
from jobs.common.detection.boxes import Boxes
from jobs.invisibility_cloak.patch.search import seed_at
from jobs.invisibility_cloak.robustness.conditions import drawn_under
from jobs.invisibility_cloak.robustness.params import CurveParams
from jobs.invisibility_cloak.transfer import TransferTest, labels_by, targets_on
from service.run import Run, reserved_device

BESIDE = "grey"
"""the control that stands beside patches"""


def curve_rows(params: CurveParams, test: TransferTest, data: str, run: Run) -> list[dict[str, Any]]:
    """A row for each point: of every patch on the victims that it was made against, and of grey on the same.

    data: the name of the set. Without points whose cells failed.
    """
    seed = run.seed_for("curves", data)
    cells: list[dict[str, Any]] = [
        {"victim": victim, "patch": row.name, "axis": axis, "value": value, "data": data, "seed": seed}
        for victim in test.victims
        for row in test.rows
        if victim in row.against or (row.name == BESIDE and any(victim in each.against for each in test.rows))
        for axis, value in params.points
    ]
    kinds = {row.name: row.kind for row in test.rows}
    results = run.map(curve_cell, cells, shared=(test, params.images), name="curves")
    return [
        {key: cell[key] for key in ("victim", "patch", "axis", "value")} | {"kind": kinds[cell["patch"]]} | result
        for cell, result in zip(cells, results, strict=True)
        if result is not None
    ]


def curve_cell(cell: dict[str, Any], shared: Any) -> dict[str, Any]:
    """AP50 and recall of one detector with one patch drawn under one condition."""
    test, most = shared
    pixels = next(row.pixels for row in test.rows if row.name == cell["patch"])
    device = reserved_device()
    detector, images = test.victims[cell["victim"]].to(device), test.sets[cell["data"]]
    count = len(images) if most is None else min(most, len(images))
    places = torch.arange(count)
    labels = labels_by(detector.classes, images.classes)
    found: list[Boxes] = []
    for number, first in enumerate(range(0, count, test.evaluation.batch)):
        chosen = places[first : first + test.evaluation.batch]
        shown = images.images(chosen).to(device)
        # the same for all values of an axis, so that curves are smooth
        stream = torch.Generator().manual_seed(seed_at(cell["seed"], "cover", number))
        targets = targets_on(test, detector, images, chosen, shown)
        with torch.no_grad():
            patch = test.reproduction.printed(pixels.to(device))
            shown = drawn_under(cell["axis"], cell["value"], patch, shown, targets, test.rendering, stream)
            shown = test.reproduction.photographed(shown, stream)
        for boxes in detector.detect(shown, test.evaluation.floor):
            assert boxes.scores is not None
            found.append(Boxes(boxes.corners.cpu(), labels[boxes.labels.cpu()], boxes.scores.cpu()))
    truth = [images.boxes(place) for place in places.tolist()]
    label = images.classes.index(test.hidden)
    precision = average_precision.measured(found, truth, [label], cell["seed"])
    recall = rates.recall(rates.fates(found, truth, label, test.evaluation.confidence), cell["seed"])
    return {
        "boxes": recall.of,
        "ap50": precision.ap50,
        "ap50_low": precision.ap50_low,
        "ap50_high": precision.ap50_high,
        "recall": recall.value,
        "recall_low": recall.low,
        "recall_high": recall.high,
    }
