"""What attacks leave, against closed forms and outcomes made by hand."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from jobs.common.attacks import ATTACKS, FAB, Ball
from jobs.common.robustness import outcomes
from jobs.common.robustness.slices import spans
from tests.jobs.common.robustness.made import outcome


@given(st.integers(1, 500), st.integers(1, 500))
def test_slices_cover_all_images_once(count: int, size: int) -> None:
    cut = spans(count, size)
    assert [index for first, end in cut for index in range(first, end)] == list(range(count))
    assert all(end - first == size for first, end in cut[:-1]) and 0 < cut[-1][1] - cut[-1][0] <= size


def test_which_attacks_look_for_the_least_norm() -> None:
    least = {kind for kind, attack in ATTACKS.items() if attack().finds_least}
    assert least == {"carlini_wagner", "fab", "ddn", "fmn", "sigma_zero", "hop_skip_jump"}
    assert not FAB(minimise=False).finds_least


def test_two_kinds_of_attacks_check_each_other() -> None:
    """Of 100 images: 2 points apart are allowed, 3 are not."""

    def left(by_search: int, within: int) -> dict[float, list[outcomes.Outcome]]:
        least, pgd = ([int(place < count) for place in range(100)] for count in (by_search, within))
        return {0.1: [replace(outcome("least", least), finds_least=True), outcome("pgd", pgd)]}

    assert outcomes.disagreements(left(50, 52)) == [], "two points are in order"
    (sentence,) = outcomes.disagreements(left(50, 53))
    assert "leave 50.0% robust, attacks within epsilon 53.0%: the other attacks are too weak" in sentence
    (sentence,) = outcomes.disagreements(left(60, 53))
    assert sentence.endswith("the searches for the least norm are too weak")
    assert outcomes.disagreements({0.1: [outcome("pgd", [1] * 100)]}) == []


@given(st.lists(st.lists(st.booleans(), min_size=5, max_size=5), min_size=1, max_size=6))
def test_success_is_carried_upwards(flags: list[list[bool]]) -> None:
    """An image is robust at an epsilon if it is at that and at every smaller one."""
    result = outcomes.carried([torch.tensor(each) for each in flags])
    for place, row in enumerate(result.tolist()):
        assert row == [all(each[image] for each in flags[: place + 1]) for image in range(5)]


def test_optimality_is_a_share_of_areas() -> None:
    """From 0.9: the best takes triangles and trapezoids of 0.4 and 0.8, another attack half of each."""
    epsilons = [0.1, 0.3]
    assert outcomes.optimality(0.9, epsilons, [0.5, 0.1], [0.5, 0.1]) == 1
    assert outcomes.optimality(0.9, epsilons, [0.7, 0.5], [0.5, 0.1]) == pytest.approx(0.5)
    expected = (0.1 * 0.4 / 2 + 0.2 * 0.4) / (0.1 * 0.4 / 2 + 0.2 * 0.6)
    assert outcomes.optimality(0.9, epsilons, [0.5, 0.5], [0.5, 0.1]) == pytest.approx(expected)
    assert outcomes.optimality(0.9, epsilons, [0.9, 0.9], [0.9, 0.9]) is None


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
    whole = outcomes.gathered("a", "pgd", Ball("Linf", 0.1), correct, [(0, 2), (2, 4)], [result, None])
    assert whole.attacked.tolist() == [True, True, False, False]
    assert whole.robust.tolist() == [False, True, False, True], "a wrong answer is never robust"
    assert whole.distances.tolist() == pytest.approx([0.05, 0.3, 0.0, math.inf])
    assert (whole.seconds, whole.warnings, whole.queries.tolist()) == (2.0, ("a doubt",), [3, 4, 0, 0])
    assert whole.within(0.04).robust.tolist() == [True, True, False, True]
    (sentence,) = outcomes.lacking([whole, outcome("b", [1, 1, 1, 1])])
    assert sentence.startswith("a was not tried on 2 of 4 images") and sentence.endswith(
        "robust accuracy is an upper bound"
    )


def test_more_epsilon_cannot_leave_more_robust() -> None:
    falling = [torch.tensor(each).bool() for each in ([1, 1, 1], [1, 0, 1], [0, 0, 1])]
    assert outcomes.rises("a", [0.1, 0.2, 0.3], falling) == []
    rising = [torch.tensor(each).bool() for each in ([0, 0, 1, 1], [1, 1, 0, 1], [1, 0, 0, 0])]
    assert outcomes.rises("a", [0.1, 0.2, 0.3], rising) == [
        "a leaves 1 more images robust at epsilon 0.2 than at 0.1: it misses at least 2 that are not, so it "
        "needs more steps or restarts"
    ]


def test_square_that_breaks_what_gradients_do_not() -> None:
    gradients, square = outcome("p", [1] * 9 + [0]), outcome("s", [1] * 8 + [0, 0], kind="square")
    (sentence,) = outcomes.square_breaks_more([gradients, square])
    assert "from 90.0% to 80.0%" in sentence and "may be masked" in sentence
    assert outcomes.square_breaks_more([square]) == outcomes.square_breaks_more([gradients]) == []
    assert outcomes.square_breaks_more([square, outcome("p", [1] * 7 + [0] * 3)]) == []
