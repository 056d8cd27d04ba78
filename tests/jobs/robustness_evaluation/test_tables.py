"""The tables of an evaluation, against outcomes made by hand."""

import math
from dataclasses import replace

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


def test_the_work_of_a_search_for_the_least_norm_stands_at_the_epsilon_at_which_was_searched() -> None:
    found = replace(outcome("fab", [1, 0], 0.2, warnings=("it is random",)), finds_least=True)
    outcomes = {0.1: [outcome("pgd", [1, 0]), found.within(0.1)], 0.2: [outcome("pgd", [1, 0], 0.2), found]}
    work = ("queries", "gradients", "seconds", "not_finite")
    rows = {(row["attack"], row["epsilon"]): row for row in tables.accuracies(torch.tensor([True, True]), outcomes)}
    assert [rows["fab", 0.1][name] for name in work] == [None] * 4 and rows["fab", 0.1]["accuracy"] == 1
    assert [rows[name][column] for name in (("fab", 0.2), ("pgd", 0.1)) for column in work] == [7, 7, 1, 0] * 2
    assert [each for each in tables.warnings(outcomes) if "random" in each] == [
        "fab at epsilon 0.2, 1 slices: it is random"
    ]


def test_what_a_cell_that_failed_would_have_told_says_nothing_of_an_attack() -> None:
    """Both attacks succeed on all images that they were tried on; two cells of one failed, at the larger epsilon."""
    whole, part = outcome("square", [0, 0, 0, 0], 0.2, kind="square"), outcome("pgd", [0, 0, 1, 1], 0.2)
    part = replace(part, attacked=torch.tensor([True, True, False, False]), queries=torch.tensor([8, 8, 0, 0]))
    nearer = torch.where(part.robust, torch.inf, 0.05)
    least = replace(part, name="fab", finds_least=True, distances=nearer)
    correct = torch.ones(4, dtype=torch.bool)
    outcomes = {
        0.1: [outcome("square", [0, 0, 0, 0], kind="square"), outcome("pgd", [0, 0, 0, 0]), least.within(0.1)],
        0.2: [whole, part, least],
    }
    assert [each.split(", because")[0] for each in tables.warnings(outcomes)] == [
        "at epsilon 0.1: fab was not tried on 2 of 4 images",
        "at epsilon 0.2: pgd was not tried on 2 of 4 images",
        "at epsilon 0.2: fab was not tried on 2 of 4 images",
    ]
    rows = {(row["attack"], row["epsilon"]): row for row in tables.accuracies(correct, outcomes)}
    assert rows["pgd", 0.2]["queries"] == 8 and rows["pgd", 0.1]["queries"] == 7
    assert {row["attack"]: row["optimality"] for row in tables.optimality(correct, outcomes)}["pgd"] == 1
    (row,) = tables.distances(correct, outcomes, ["fab"])
    assert row["found"] == 1 and row["three_quarters"] == pytest.approx(0.05)

    nothing = replace(whole, attacked=torch.zeros(4, dtype=torch.bool))
    assert (
        len(tables.warnings({0.2: [nothing, whole]})) == 1 and tables.optimality(correct, {0.2: [nothing, whole]}) == []
    )


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
