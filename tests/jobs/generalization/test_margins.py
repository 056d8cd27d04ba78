"""Distances to a boundary whose place is known."""

import math

import pytest
import torch
from torch import Tensor, nn

from jobs.generalization import margins as module
from jobs.generalization.boundary import probabilities
from jobs.generalization.margins import MarginParams, margins


class Disc(nn.Module):
    """Class 1 within a radius of the middle of the frame."""

    radius = 0.3

    def forward(self, images: Tensor) -> Tensor:
        away = (images.flatten(1) - 0.5).norm(dim=1)
        return torch.stack([torch.zeros_like(away), self.radius - away], 1)


class HalfPlane(nn.Module):
    """Class 1 where 3 x + 4 y is above 3.5."""

    def forward(self, images: Tensor) -> Tensor:
        side = images.flatten(1) @ torch.tensor([3.0, 4.0]) - 3.5
        return torch.stack([-side, side], 1)


def test_distances_to_a_circle() -> None:
    away = torch.tensor([0.0, 0.1, 0.29, 0.31, 0.45])
    points = torch.stack([0.5 + away, torch.full_like(away, 0.5)], 1).view(-1, 2, 1, 1)
    measured = margins(Disc(), points, MarginParams(angles=72, radii=80))
    torch.testing.assert_close(measured, (away - 0.3).abs().double(), rtol=1e-4, atol=1e-6)


def test_distances_to_a_line_are_bounds_from_above_and_near() -> None:
    points = torch.rand(50, 2, 1, 1, generator=torch.Generator().manual_seed(0))
    expected = (points.flatten(1).double() @ torch.tensor([3.0, 4.0]).double() - 3.5).abs() / 5
    measured = margins(HalfPlane(), points, MarginParams(angles=60, radii=40))
    assert (measured >= expected - 1e-5).all()
    assert (measured <= expected / math.cos(math.pi / 60) + 1e-5).all(), "half an angle between rays away at most"


def test_points_part_by_part_are_as_all_together(monkeypatch: pytest.MonkeyPatch) -> None:
    points = torch.rand(7, 2, 1, 1, generator=torch.Generator().manual_seed(0))
    whole = margins(HalfPlane(), points, MarginParams(angles=8, radii=10))
    held: list[int] = []
    classes = module._classes
    monkeypatch.setattr(module, "_classes", lambda network, at: held.append(len(at)) or classes(network, at))
    monkeypatch.setattr(module, "MOST_PLACES", 200)
    assert torch.equal(margins(HalfPlane(), points, MarginParams(angles=8, radii=10)), whole)
    assert max(held) == 2 * 8 * 10


def test_a_point_that_sees_no_other_class_is_infinitely_far() -> None:
    class Constant(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.tensor([[0.0, 1.0]]).expand(len(images), 2)

    assert margins(Constant(), torch.rand(3, 2, 1, 1), MarginParams(angles=4, radii=5)).isinf().all()


def test_the_map_begins_at_the_lower_left() -> None:
    values = probabilities(HalfPlane(), 5)
    assert values.shape == (2, 5, 5) and float(values.sum(0).mean()) == pytest.approx(1)
    # at (x, y) = (0, 1) 4 is above 3.5, at (1, 0) 3 is not: y goes up along the rows
    assert values[1, 4, 0] > 0.5 > values[1, 0, 4] and values[1, 0, 0] < 0.05 and values[1, 4, 4] > 0.95
