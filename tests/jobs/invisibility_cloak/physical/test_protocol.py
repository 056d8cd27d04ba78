"""Success, partial success and failure, by hand."""

import pytest
import torch

from jobs.common.detection.boxes import Boxes
from jobs.common.metrics.intervals import wilson
from jobs.invisibility_cloak.physical.protocol import Judged, judged, rates

PERSON = torch.tensor([[10.0, 10.0, 30.0, 60.0]])


def found(*corners: list[float]) -> Boxes:
    boxes = torch.tensor(corners, dtype=torch.float32).reshape(-1, 4)
    return Boxes(boxes, torch.zeros(len(boxes), dtype=torch.int64), torch.linspace(0.9, 0.5, len(boxes)))


@pytest.mark.parametrize(
    ("boxes", "outcome", "share"),
    [
        ([], "success", 0.0),
        ([[10, 10, 30, 60]], "failure", 1.0),
        ([[10, 10, 30, 35]], "failure", 0.5),  # half is no less than half
        ([[10, 10, 30, 34]], "partial", 0.48),
        ([[10, 10, 30, 14]], "success", 0.0),  # a twelfth of the person is not the person
        ([[50, 10, 70, 60]], "success", 0.0),
        ([[10, 10, 30, 34], [10, 10, 30, 50]], "failure", 0.8),
        ([[0, 0, 100, 100]], "failure", 1.0),
    ],
)
def test_a_person_is_lost_partly_lost_or_kept(boxes: list[list[float]], outcome: str, share: float) -> None:
    ((result, covered, score),) = judged(PERSON, found(*boxes))
    assert result == outcome and covered == pytest.approx(share) and (score > 0) == (outcome != "success")


def test_the_box_of_a_neighbour_counts_for_the_neighbour() -> None:
    persons = torch.tensor([[10.0, 10.0, 30.0, 60.0], [20.0, 10.0, 40.0, 60.0]])
    results = [outcome for outcome, _, _ in judged(persons, found([20, 10, 40, 60]))]
    assert results == ["success", "failure"]


def test_nobody_and_empty_boxes() -> None:
    assert judged(torch.zeros(0, 4), found([1, 1, 2, 2])) == []
    assert judged(torch.tensor([[5.0, 5.0, 5.0, 9.0]]), found([0, 0, 9, 9]))[0][0] == "success"


def test_shares_have_intervals() -> None:
    persons = [Judged(place, 0, "success" if place else "partial", 0.0, 0.0) for place in range(4)]
    rows = {row["outcome"]: row for row in rates(persons)}
    assert rows["success"]["share"] == 0.75 and rows["success"]["low"] < 0.75 < rows["success"]["high"]
    assert rows["partial"]["count"] == 1 and rows["failure"]["count"] == 0
    assert [row["share"] for row in rates([])] == [0, 0, 0]


def test_persons_of_one_photograph_who_end_alike_count_as_one() -> None:
    persons = [
        Judged(place, person, "success" if place else "partial", 0.0, 0.0) for place in (0, 1) for person in (0, 1, 2)
    ]
    (success, *_) = rates(persons)
    assert (success["low"], success["high"]) == pytest.approx(wilson(1, 2))
