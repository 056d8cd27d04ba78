"""Curves against counts by hand and closed forms."""

from typing import Any

import pytest
import torch
from scipy.stats import beta

from jobs.common.robustness.outcomes import worst_cases
from jobs.inevitability.curves import Curve, least_distances, resolution_gaps
from tests.jobs.common.robustness.made import outcome


def curve(robust: list[list[int]], epsilons: tuple[float, ...] = (0.0, 0.1, 0.2), **changes: Any) -> Curve:
    """Of robust flags, a list an epsilon."""
    flags = torch.tensor(robust).bool()
    known = {"name": "net", "kind": "trained", "resolution": 1, "norm": "L2", "mean_norm": 4.0, **changes}
    distances = changes.get("distances", torch.zeros(flags.shape[1]).double())
    return Curve(epsilons=epsilons, robust=flags, **{**known, "distances": distances})


def test_the_worst_case_is_over_attacks_and_smaller_epsilons() -> None:
    correct = torch.tensor([1, 1, 1, 0]).bool()
    attacked = {
        0.1: [outcome("a", [1, 1, 0, 0], 0.1), outcome("b", [0, 1, 1, 0], 0.1)],
        0.2: [outcome("a", [1, 1, 1, 0], 0.2), outcome("b", [1, 0, 1, 0], 0.2)],
    }
    assert worst_cases(correct, attacked).int().tolist() == [[1, 1, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    assert least_distances(correct, attacked).tolist() == pytest.approx([0.1, 0.2, 0.1, 0.0])


def test_numbers_of_a_curve() -> None:
    distances = torch.tensor([0.05, 0.15, float("inf"), 0.0]).double()
    one = curve([[1, 1, 1, 0], [0, 1, 1, 0], [0, 0, 1, 0]], distances=distances)
    assert one.accuracies == [0.75, 0.5, 0.25]
    assert one.median_distance == pytest.approx(0.05), "two of four are changed by then"
    assert one.area == pytest.approx((0.1 * (0.75 + 0.5) / 2 + 0.1 * (0.5 + 0.25) / 2) / 0.2)
    assert one.accuracy(0.1 + 1e-12) == 0.5
    with pytest.raises(ValueError, match="is not one of"):
        one.accuracy(0.15)
    rows = one.rows()
    for row, robust in zip(rows, (3, 2, 1), strict=True):
        # the exact interval by its definition: quantiles of beta distributions
        assert row["low"] == pytest.approx(beta.ppf(0.025, robust, 4 - robust + 1))
        assert row["high"] == pytest.approx(beta.ppf(0.975, robust + 1, 4 - robust))
    large = curve([[1], [1], [0]], (0.0, 0.2, 0.4), resolution=2, mean_norm=8.0)
    assert [row["scaled_epsilon"] for row in large.rows()] == [0.0, 0.1, 0.2]
    assert [row["relative_epsilon"] for row in large.rows()] == pytest.approx([0.0, 0.025, 0.05])


def test_half_of_the_images_that_withstand_everything_have_no_median() -> None:
    distances = torch.tensor([0.0, float("inf"), float("inf")]).double()
    assert curve([[0, 1, 1]] * 3, distances=distances).summary()["median_distance"] == float("inf")


def test_differences_between_resolutions() -> None:
    base = curve([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]])
    large = curve(
        [[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 1, 0], [0, 0, 0, 0]], (0.0, 0.1, 0.2, 0.4), resolution=2, mean_norm=8.0
    )
    (row,) = resolution_gaps([base, large])
    assert row["gap"] == 0.25, "3 of 4 at 0.2, where the small images have 2 of 4 at 0.1"
    assert row["fixed_gain"] == 0.25, "of 0.25 at 0.1 and 0.75 at 0.2"
    assert resolution_gaps([base]) == []
