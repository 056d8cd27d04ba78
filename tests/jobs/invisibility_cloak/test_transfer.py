"""The cells of the matrix: what is drawn on whom, whose labels count, what is measured where everything is hidden."""

from typing import Any

import pytest
import torch
from torch import Tensor

from jobs.common.detection import rates
from jobs.common.detection.base import Detector, Priors
from jobs.common.detection.boxes import Boxes
from jobs.invisibility_cloak import transfer
from jobs.invisibility_cloak.making import MatrixRow
from jobs.invisibility_cloak.params import EvaluationParams
from jobs.invisibility_cloak.patch.rendering_params import RenderingParams
from jobs.invisibility_cloak.transfer import detection_cell, labels_by, measuring_cell, packed, unpacked
from service.planning.validation import validate

WHERE = torch.tensor([[10.0, 6.0, 30.0, 42.0], [40.0, 4.0, 60.0, 44.0]])


class Streets:
    """Three dark images; two persons stand where WHERE says, in the third one nobody."""

    name, classes, side, boxed_by, digest, remarks = "streets", ("tree", "person"), 64, None, "0", ()

    def __len__(self) -> int:
        return 3

    def images(self, places: Tensor) -> Tensor:
        return torch.zeros(len(places), 3, 64, 64)

    def boxes(self, place: int) -> Boxes:
        return Boxes(WHERE, torch.tensor([1, 1])) if place < 2 else Boxes(torch.empty(0, 4), torch.empty(0).long())


class Watcher(Detector):
    """Finds persons at the two places, unless it is bright there; what is red it takes for a cat."""

    name, classes, substitute = "watcher", ("person", "cat"), None

    def priors(self, images: Tensor) -> Priors:
        raise NotImplementedError

    def detect(self, images: Tensor, confidence: float = 0.02, overlap: float = 0.45, most: int = 300) -> list[Boxes]:
        found = []
        for image in images:
            colours = image[:, [24, 24], [20, 50]].T  # (places, 3): in the middle of the two
            red = (colours[:, 0] > 0.5) & (colours[:, 1] < 0.5)
            seen = (colours.amax(1) < 0.5) | red
            found.append(Boxes(WHERE, red.long(), torch.tensor([0.9, 0.8])).at(seen))
        return found


def drawn_before(rows: list[MatrixRow], **evaluation: Any) -> transfer.TransferTest:
    section = validate(EvaluationParams, evaluation, "evaluation")
    return transfer.TransferTest(
        rows, {"watcher": Watcher()}, {"test": Streets()}, "person", RenderingParams(median=1), section
    )


def rows() -> list[MatrixRow]:
    colours = {"white": (1.0, 1.0, 1.0), "red": (1.0, 0.0, 0.0), "black": (0.0, 0.0, 0.0)}
    pixels = {name: torch.tensor(colour).view(3, 1, 1).expand(3, 10, 6) for name, colour in colours.items()}
    return [MatrixRow("clean", "clean", None), *(MatrixRow(name, "control", each) for name, each in pixels.items())]


def cell(row: str) -> dict[str, Any]:
    return {"row": row, "victim": "watcher", "data": "test", "seed": 0}


def measures(tested: transfer.TransferTest) -> dict[str, dict[str, Any]]:
    found = {(row.name, "watcher", "test"): unpacked(detection_cell(cell(row.name), tested)) for row in tested.rows}
    truths = {"test": [Streets().boxes(place) for place in range(3)]}
    shared = (found, truths, {"test": 1}, [row.name for row in tested.rows], 0.5)
    return measuring_cell({"victim": "watcher", "data": "test", "seed": 0}, shared)


def test_what_hides_and_what_does_not() -> None:
    table = measures(drawn_before(rows(), batch=2))
    assert (table["clean"]["recall"], table["clean"]["success"]) == (1, 0)
    # of the three that are surest one is wrong: precision 1 up to a recall of .5, then 4 of 5
    assert table["clean"]["ap50"] == pytest.approx((51 + 50 * 0.8) / 101)
    assert table["clean"]["drawn"] == 0 and table["clean"]["boxes"] == 4
    assert table["clean"]["false_positives"] == pytest.approx(2 / 3), "in the third image nobody stands there"
    white = table["white"]
    assert (white["recall"], white["ap50"], white["success"], white["disappeared"]) == (0, 0, 1, 1)
    assert white["drawn"] == 4 and white["success_low"] == white["success_high"] == 1
    red = table["red"]
    assert (red["recall"], red["misclassified"], red["disappeared"], red["success"]) == (0, 1, 0, 1)
    assert table["black"]["recall"] == 1 and table["black"]["success"] == 0


def test_a_box_that_does_not_fit_hides_nobody_whole() -> None:
    truth = [Boxes(WHERE, torch.tensor([1, 1])), Boxes(WHERE[:1], torch.tensor([1]))]
    corners = torch.tensor([[10.0, 6.0, 30.0, 20.0], [40.0, 4.0, 60.0, 44.0], [0.0, 50.0, 9.0, 60.0]])
    found = [Boxes(corners, torch.tensor([1, 1, 1]), torch.tensor([0.9, 0.8, 0.7]))]
    found.append(Boxes(corners[:1], torch.tensor([1]), torch.tensor([0.4])))
    fates = rates.fates(found, truth, 1, 0.5)
    # of three people one is found, one has a box of her upper part, and the last one's is not sure enough
    assert transfer.displaced(found, truth, 1, 0.5, fates) == pytest.approx(1 / 3)


def test_a_patch_may_be_drawn_on_what_the_victim_finds() -> None:
    table = measures(drawn_before(rows(), drawn_on="detections"))
    assert table["white"]["drawn"] == 6 and table["white"]["recall"] == 0, "on those of the third image as well"


def test_where_nobody_is_found_without_a_patch_no_success_is_said() -> None:
    empty = [Boxes(torch.empty(0, 4), torch.empty(0).long(), torch.empty(0)) for _ in range(3)]
    found = {("clean", "watcher", "test"): unpacked(packed(empty, 0, [0, 0, 0, 0]))}
    shared = (found, {"test": [Streets().boxes(place) for place in range(3)]}, {"test": 1}, ["clean", "other"], 0.5)
    table = measuring_cell({"victim": "watcher", "data": "test", "seed": 0}, shared)
    assert list(table) == ["clean"] and table["clean"]["success"] is None and table["clean"]["ap50"] == 0


def test_what_is_found_travels_whole() -> None:
    boxes = [Boxes(torch.rand(count, 4), torch.arange(count), torch.rand(count)) for count in (2, 0, 3)]
    again = unpacked(packed(boxes, 4, [1, 2, 3, 4]))
    assert (again.drawn, again.skipped) == (4, (1, 2, 3, 4))
    for one, other in zip(boxes, again.boxes, strict=True):
        assert torch.equal(one.corners, other.corners) and torch.equal(one.labels, other.labels)
        assert one.scores is not None and other.scores is not None and torch.equal(one.scores, other.scores)


def test_labels_are_those_of_the_images() -> None:
    assert labels_by(("person", "cat", "tree"), ("tree", "person")).tolist() == [1, 3, 0]
