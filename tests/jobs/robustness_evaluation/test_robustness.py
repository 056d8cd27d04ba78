"""Shares, intervals and flags, against closed forms and outcomes made by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from jobs.common.attacks import FAB, PGD, AutoAttack, Ball, CarliniWagner
from jobs.robustness_evaluation import robustness, tables
from jobs.robustness_evaluation.robustness import Outcome
from jobs.robustness_evaluation.slices import spans


def outcome(
    name: str, robust: list[int], epsilon: float = 0.1, kind: str = "pgd", warnings: tuple[str, ...] = ()
) -> Outcome:
    """What an attack did that was tried on all images and succeeded on those without a 1."""
    still = torch.tensor(robust).bool()
    work = torch.full(still.shape, 7)
    distances = torch.where(still, torch.inf, epsilon)
    attacked = torch.ones_like(still)
    return Outcome(name, kind, Ball("Linf", epsilon), attacked, still, ~attacked, distances, work, work, 1.0, warnings)


@given(st.integers(1, 500), st.integers(1, 500))
def test_slices_cover_all_images_once(count: int, size: int) -> None:
    cut = spans(count, size)
    assert [index for first, end in cut for index in range(first, end)] == list(range(count))
    assert all(end - first == size for first, end in cut[:-1]) and 0 < cut[-1][1] - cut[-1][0] <= size


def test_the_worst_case_is_robust_to_all() -> None:
    attacked = [outcome("one", [1, 1, 0, 0]), outcome("other", [1, 0, 1, 0])]
    assert robustness.worst_case(attacked).tolist() == [True, False, False, False]
    rows = tables.accuracies(torch.tensor([True, True, True, False]), {0.1: attacked})
    assert [(row["attack"], row["epsilon"], row["accuracy"]) for row in rows] == [
        ("no attack", 0.0, 0.75),
        ("one", 0.1, 0.5),
        ("other", 0.1, 0.5),
        ("worst case", 0.1, 0.25),
    ]


def test_which_attacks_look_for_the_least_norm() -> None:
    assert [robustness.minimum_norm(each) for each in (CarliniWagner(), FAB(), FAB(minimise=False))] == [
        True,
        True,
        False,
    ]
    assert not robustness.minimum_norm(PGD()) and not robustness.minimum_norm(AutoAttack())


def test_cells_that_failed_count_as_robust() -> None:
    result = {
        "successful": torch.tensor([True, False]),
        "not_finite": torch.tensor([False, True]),
        "distances": torch.tensor([0.05, 0.3]),
        "queries": torch.tensor([3, 4]),
        "gradients": torch.tensor([1, 2]),
        "seconds": 2.0,
        "warnings": ["a doubt"],
    }
    correct = torch.tensor([True, True, False, True])
    whole = robustness.gathered("a", "pgd", Ball("Linf", 0.1), correct, [(0, 2), (2, 4)], [result, None])
    assert whole.attacked.tolist() == [True, True, False, False]
    assert whole.robust.tolist() == [False, True, False, True], "a wrong answer is never robust"
    assert whole.distances.tolist() == pytest.approx([0.05, 0.3, 0.0, math.inf])
    assert (whole.seconds, whole.warnings, whole.queries.tolist()) == (2.0, ("a doubt",), [3, 4, 0, 0])
    assert whole.within(0.04).robust.tolist() == [True, True, False, True]
    (sentence,) = robustness.lacking([whole, outcome("b", [1, 1, 1, 1])])
    assert sentence.startswith("a was not tried on 2 of 4 images") and sentence.endswith(
        "robust accuracy is an upper bound"
    )


def test_more_epsilon_cannot_leave_more_robust() -> None:
    falling = [torch.tensor(each).bool() for each in ([1, 1, 1], [1, 0, 1], [0, 0, 1])]
    assert robustness.rises("a", [0.1, 0.2, 0.3], falling) == []
    rising = [torch.tensor(each).bool() for each in ([0, 0, 1, 1], [1, 1, 0, 1], [1, 0, 0, 0])]
    assert robustness.rises("a", [0.1, 0.2, 0.3], rising) == [
        "a leaves 1 more images robust at epsilon 0.2 than at 0.1: it misses at least 2 that are not, so it "
        "needs more steps or restarts"
    ]


def test_square_that_breaks_what_gradients_do_not() -> None:
    gradients, square = outcome("p", [1] * 9 + [0]), outcome("s", [1] * 8 + [0, 0], kind="square")
    (sentence,) = robustness.square_breaks_more([gradients, square])
    assert "from 90.0% to 80.0%" in sentence and "may be masked" in sentence
    assert robustness.square_breaks_more([square]) == robustness.square_breaks_more([gradients]) == []
    assert robustness.square_breaks_more([square, outcome("p", [1] * 7 + [0] * 3)]) == []


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
