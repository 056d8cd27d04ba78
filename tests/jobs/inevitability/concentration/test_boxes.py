"""Boxes and the distances under them against scipy, plain loops and the algorithm read as it is printed."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from sklearn.datasets import load_digits
from torch import Tensor

from jobs.inevitability.concentration import distances
from jobs.inevitability.concentration.boxes import Clusterings, clustered, search
from jobs.inevitability.concentration.distances import l1, neighbour_radii


def digits(count: int) -> Tensor:
    return torch.from_numpy(load_digits().data[:count]).float() / 16


@pytest.mark.parametrize("tile", [(512, 2048), (7, 11)])
def test_l1_distances(monkeypatch: pytest.MonkeyPatch, tile: tuple[int, int]) -> None:
    """Of equal points they are 0 exactly, and any tile gives the same numbers."""
    points = torch.cat([digits(60), digits(10)])
    whole = l1(points, points[:33])
    monkeypatch.setattr(distances, "TILE", tile)
    assert torch.equal(l1(points, points[:33]), whole)
    np.testing.assert_allclose(whole.numpy(), cdist(points, points[:33], "cityblock"), atol=1e-4)
    assert whole[60:, :10].diagonal().tolist() == [0.0] * 10


@pytest.mark.parametrize("size", [1 << 12, 50])
def test_neighbour_radii(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(distances, "SIDE", size)
    points = torch.cat([digits(180), digits(3)])
    expected = np.sort(cdist(points, points, "cityblock"), axis=1)
    for neighbours in (1, 2, 50, 183):
        np.testing.assert_allclose(neighbour_radii(points, neighbours).numpy(), expected[:, neighbours - 1], atol=1e-4)


def as_printed(points: Tensor, densest: Tensor, boxes: int, errors: int, epsilon: float) -> tuple[float, int, int]:
    """q, the points outside of the widened boxes and those outside of the boxes, with loops over points and boxes."""
    low, high, best = 0.0, 1.0, (0.0, 0, len(points) + 1)
    while high - low > 0.005:
        share = (low + high) / 2
        chosen = points[densest[: int(len(points) * share)]].numpy().astype(np.float64)
        drawn = torch.randperm(len(chosen), generator=torch.Generator().manual_seed(5))[:boxes]
        centres, labels = chosen[drawn.numpy()], None
        for _ in range(30):
            nearest = [int(np.argmin([np.abs(each - centre).sum() for centre in centres])) for each in chosen]
            if nearest == labels:
                break
            labels = nearest
            centres = np.array([chosen[np.array(labels) == box].mean(0) for box in range(boxes)])
        widths = [np.abs(chosen[np.array(labels) == box] - centres[box]).max(0) for box in range(boxes)]
        inside = outside = 0
        for point in points.numpy().astype(np.float64):
            excess = min(float((np.abs(point - c) - w).max()) for c, w in zip(centres, widths, strict=True))
            inside += excess > epsilon + 1e-6
            outside += excess > 1e-6
        if inside >= errors:
            low = share
            if outside <= best[2]:
                best = share, inside, outside
        else:
            high = share
    return best


@pytest.mark.parametrize(("boxes", "epsilon"), [(2, 0.05), (4, 0.2)])
def test_the_boxes_are_the_printed_ones(boxes: int, epsilon: float) -> None:
    points = digits(150)[:, 18:46]
    densest = neighbour_radii(points, 10).argsort(stable=True)
    fit = search(Clusterings(points, densest, boxes, 30, 5), 15, epsilon)
    assert fit is not None
    assert (fit.densest, fit.errors, fit.adversarial) == as_printed(points, densest, boxes, 15, epsilon)
    inside, expanded = fit.region.within(points, [0.0, epsilon])
    assert (int(inside.sum()), int(expanded.sum())) == (fit.errors, fit.adversarial)


def test_a_point_within_epsilon_of_the_region_is_in_its_expansion() -> None:
    """What is counted holds the true expansion: moves of epsilon at each corner that reach the region are counted."""
    points = torch.rand(40, 2, generator=torch.Generator().manual_seed(0))
    fit = search(Clusterings(points, torch.arange(40), 3, 30, 0), 6, 0.1)
    assert fit is not None
    expanded = fit.region.within(points, [0.1])[0]
    for shift in torch.cartesian_prod(torch.linspace(-0.099, 0.099, 9), torch.linspace(-0.099, 0.099, 9)):
        reaches = fit.region.within(points + shift, [0.0])[0]
        assert bool((expanded | ~reaches).all())


def test_a_cluster_that_no_point_is_nearest_to_is_left_out() -> None:
    points = torch.cat([torch.zeros(9, 3), torch.ones(9, 3)])
    centres, widths = clustered(points, 6, 30, 0)
    assert sorted(centres[:, 0].tolist()) == [0.0, 1.0] and bool((widths == 0).all())
    centres, _ = clustered(points[:1], 4, 30, 0)
    assert centres.tolist() == [[0.0] * 3]


def test_too_many_errors_for_any_boxes() -> None:
    points = torch.rand(20, 2, generator=torch.Generator().manual_seed(0))
    assert search(Clusterings(points, torch.arange(20), 1, 30, 0), 20, 0.5) is None
