"""Balls against the algorithm read as it is printed, one point at a time, and against all balls on a few points."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from jobs.inevitability.concentration import balls
from jobs.inevitability.concentration.balls import Fit, Uncertainty, neighbourhoods, search


def cloud(count: int, seed: int = 0, pixels: int = 3) -> Tensor:
    """Points of two densities."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(count, pixels, generator=generator)
    points[: count // 3] *= 0.2
    return points


def as_printed(
    points: Tensor, count: int, errors: int, epsilon: float, p: float, uncertainty: Uncertainty | None = None
) -> tuple[set[int], set[int]]:
    """Place the balls with loops over centres and sizes: the points covered, and those that the expansion reaches."""
    table = torch.cdist(points.double(), points.double(), p).numpy()
    covered: set[int] = set()
    reached: set[int] = set()
    for left in range(count, 0, -1):
        due = errors - len(covered)
        if due <= 0:
            break
        least, best = len(points) + 1, None
        for row in table:
            fresh = sorted(row[each] for each in range(len(points)) if each not in covered)
            for size in range(math.ceil(due / left), due + 1):
                radius = fresh[size - 1] + 1e-5
                inside = {each for each in range(len(points)) if row[each] <= radius} - covered
                around = {each for each in range(len(points)) if row[each] <= radius + epsilon} - reached
                if uncertainty and float(uncertainty.values[list(inside)].mean()) < uncertainty.least:
                    continue
                if len(around) - len(inside) < least:
                    least, best = len(around) - len(inside), (inside, around)
        assert best is not None
        covered |= best[0]
        reached |= best[1]
    return covered, reached


def facts(fit: Fit | None) -> tuple[int, int]:
    assert fit is not None
    return fit.errors, fit.adversarial


@pytest.mark.parametrize("p", [2.0, math.inf, 1.0])
@pytest.mark.parametrize(("count", "errors", "epsilon"), [(1, 4, 0.2), (3, 7, 0.1), (3, 12, 0.4)])
def test_the_balls_are_the_printed_ones(p: float, count: int, errors: int, epsilon: float) -> None:
    points = cloud(40)
    fit = search(neighbourhoods(points, torch.arange(40), p), count, errors, epsilon)
    covered, reached = as_printed(points, count, errors, epsilon, p)
    assert fit is not None and (fit.errors, fit.adversarial) == (len(covered), len(reached))
    inside, expanded = fit.region.within(points, [0.0, epsilon])
    assert set(inside.nonzero().flatten().tolist()) == covered
    assert set(expanded.nonzero().flatten().tolist()) == reached


def test_one_ball_is_the_best_of_all_balls_around_points() -> None:
    """Exhaustively: every point as the centre, every distance from it as the radius."""
    points, errors, epsilon = cloud(25, seed=4), 5, 0.3
    fit = search(neighbourhoods(points, torch.arange(25), 2.0), 1, errors, epsilon)
    table = torch.cdist(points.double(), points.double())
    growths = [
        int((row <= radius + 1e-6 + epsilon).sum()) - int((row <= radius + 1e-6).sum())
        for row, radius in ((row, radius) for row in table for radius in row)
        if int((row <= radius + 1e-6).sum()) == errors
    ]
    assert fit is not None and fit.adversarial - fit.errors == min(growths)


def test_no_choice_of_two_balls_is_far_better_than_one_after_another() -> None:
    """Placing them one by one is no optimum; on few points all pairs can be tried, and are never worse."""
    points, errors, epsilon = cloud(16, seed=2, pixels=2), 4, 0.25
    fit = search(neighbourhoods(points, torch.arange(16), 2.0), 2, errors, epsilon)
    table = torch.cdist(points.double(), points.double()).numpy() - 1e-6
    single = [(row, radius) for row in table for radius in row]
    counts = []
    for (one, first), (other, second) in itertools.combinations(single, 2):
        if int(((one <= first + 1e-5) | (other <= second + 1e-5)).sum()) >= errors:
            counts.append(int(((one <= first + epsilon) | (other <= second + epsilon)).sum()))
    assert fit is not None and fit.errors >= errors
    assert min(counts) <= fit.adversarial <= 2 * min(counts)


def test_a_region_of_uncertain_labels() -> None:
    """The dense third has certain labels: with gamma the balls lie elsewhere and expand more."""
    points = cloud(60, seed=1)
    values = torch.cat([torch.zeros(20), torch.full((40,), 0.8)]) + 0.1 * torch.rand(60)
    around = neighbourhoods(points, torch.arange(60), 2.0)
    free = search(around, 2, 6, 0.2)
    uncertainty = Uncertainty(values, 0.6)
    bound = search(around, 2, 6, 0.2, uncertainty)
    covered, reached = as_printed(points, 2, 6, 0.2, 2.0, uncertainty)
    assert facts(bound) == (len(covered), len(reached))
    assert bound is not None and free is not None
    inside = bound.region.within(points, [0.0])[0]
    assert float(values[inside].mean()) >= 0.6
    assert facts(search(around, 2, 6, 0.2, Uncertainty(values, 0.0))) == facts(free)
    assert search(around, 2, 6, 0.2, Uncertainty(values, 1.5)) is None, "no ball is so uncertain"


def test_duplicates_are_covered_together() -> None:
    points = torch.cat([torch.zeros(5, 2), torch.ones(3, 2), torch.rand(12, 2) * 10 + 5])
    fit = search(neighbourhoods(points, torch.arange(20), 2.0), 1, 2, 0.1)
    assert fit is not None and fit.errors >= 3 and fit.adversarial == fit.errors
    assert int(fit.region.within(points, [0.0]).sum()) == fit.errors


def test_the_balls_do_not_depend_on_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    points = cloud(150, pixels=20)

    def region() -> np.ndarray:
        fit = search(neighbourhoods(points, torch.arange(0, 150, 2), 2.0), 4, 20, 0.3)
        assert fit is not None
        return torch.cat([fit.region.centres, fit.region.radii[:, None]], 1).numpy()

    reference = region()
    monkeypatch.setattr(balls, "ROWS", 7)
    np.testing.assert_allclose(region(), reference, rtol=1e-6)
