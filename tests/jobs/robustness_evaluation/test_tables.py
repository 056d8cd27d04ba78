"""The tables of an evaluation, against outcomes made by hand."""

import math

import pytest
import torch

from jobs.common.robustness.outcomes import Outcome, worst_case
from jobs.robustness_evaluation import tables
from tests.jobs.common.robustness.made import outcome


def test_the_worst_case_is_robust_to_all() -> None:
    attacked = [outcome("one", [1, 1, 0, 0]), outcome("other", [1, 0, 1, 0])]
    assert worst_case(attacked).tolist() == [True, False, False, False]
    rows = tables.accuracies(torch.tensor([True, True, True, False]), {0.1: attacked})
    assert [(row["attack"], row["epsilon"], row["accuracy"]) for row in rows] == [
        ("no attack", 0.0, 0.75),
        ("one", 0.1, 0.5),
        ("other", 0.1, 0.5),
        ("worst case", 0.1, 0.25),
    ]


def test_warnings_that_differ_in_numbers_are_one() -> None:
    doubts = ("3 of 20 samples are zero", "5 rounds of 11 of 19 samples", "11 of 15 samples are zero", "it is random")
    sentences = tables.warnings({0.1: [outcome("a", [1, 0], warnings=doubts)], 0.2: [outcome("a", [1, 1], 0.2)]})
    assert sentences[:3] == [
        "a at epsilon 0.1, 2 slices: 14 of 35 samples are zero",
        "a at epsilon 0.1, 1 slices: 5 rounds of 11 of 19 samples",
        "a at epsilon 0.1, 1 slices: it is random",
    ]
    assert [sentence.split(" leaves ")[0] for sentence in sentences[3:]] == ["a", "worst case"]


def test_quartiles_of_distances() -> None:
    attacked = outcome("cw", [0, 0, 0, 1, 0])
    distances = torch.tensor([0.1, 0.2, 0.3, math.inf, 0.0]).double()
    least = Outcome(**{**vars(attacked), "distances": distances})
    (row,) = tables.distances(torch.tensor([True, True, True, True, False]), {0.1: [least]}, ["cw"])
    assert row["found"] == 0.75
    assert [row[name] for name in ("least", "quarter", "median", "three_quarters")] == pytest.approx(
        [0.1, 0.2, 0.3, math.inf]
    )
    assert tables.distances(torch.tensor([False] * 5), {0.1: [least]}, ["cw"]) == []
