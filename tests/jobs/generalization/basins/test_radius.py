"""Radii of rays on losses that are known."""

import math

import pytest
import torch
from torch import Tensor

from jobs.generalization.basins.radius import ScanParams, radii, refused_cut

CAPS = torch.ones(5, dtype=torch.float64)


def slopes(rays: int) -> Tensor:
    return torch.linspace(1.5, 400, rays, dtype=torch.float64)


def test_radii_of_a_quadratic_loss_are_the_closed_form_for_every_cut():
    curvature = slopes(5)
    cuts = [0.01, 0.2]
    measured = radii(lambda rays, r: 0.5 * curvature[rays] * r**2, CAPS, cuts, ScanParams(tolerance=1e-9))
    expected = torch.stack([(2 * cut / curvature).sqrt() for cut in cuts])
    torch.testing.assert_close(measured.radius, expected, rtol=1e-9, atol=0)
    assert not measured.censored.any() and (measured.crossings == 1).all() and not measured.not_finite.any()


def test_a_ray_that_stays_below_the_cut_is_censored_at_its_own_cap():
    curvature, caps = torch.tensor([1.0, 100.0]).double(), torch.tensor([0.5, 0.7]).double()
    measured = radii(lambda rays, r: 0.5 * curvature[rays] * r**2, caps, [0.3], ScanParams(tolerance=1e-5))
    assert measured.censored.tolist() == [[True, False]]
    assert measured.radius[0, 0] == 0.5 and measured.crossings[0, 0] == 0
    assert measured.radius[0, 1] == pytest.approx(math.sqrt(0.006), rel=1e-4)


def test_the_first_of_several_crossings_counts():
    """A ridge at 0.1 to 0.2, a valley behind it, and the wall at 0.9."""

    def loss(rays: Tensor, r: Tensor) -> Tensor:
        return torch.where((r >= 0.1) & (r < 0.2) | (r >= 0.9), 2.0, 0.5).double()

    measured = radii(loss, CAPS[:1], [1.0], ScanParams(tolerance=1e-8))
    assert measured.radius.item() == pytest.approx(0.1, rel=1e-7)
    assert measured.crossings.item() == 3


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_past_the_cut_and_counted(bad):
    measured = radii(lambda rays, r: torch.where(r < 0.25, r, bad), CAPS[:2], [0.5], ScanParams(tolerance=1e-8))
    assert measured.radius.flatten().tolist() == pytest.approx([0.25, 0.25], rel=1e-7)
    ladder = ScanParams().shares()
    assert measured.not_finite.tolist() == [int((ladder >= 0.25).sum())] * 2


def test_a_radius_below_the_first_distance_of_the_scan_is_bisected_from_the_centre():
    measured = radii(lambda rays, r: r * 1e7, CAPS[:1], [1.0], ScanParams(tolerance=1e-6))
    assert measured.radius.item() == pytest.approx(1e-7, rel=1e-6)


def test_radii_are_those_of_brute_force():
    """Wavy losses, as finely sampled as the scan looks: each crossing is bracketed by two of its distances."""
    stream = torch.Generator().manual_seed(0)
    waves, phases = torch.rand(50, 6, generator=stream).double(), 6 * torch.rand(50, 6, generator=stream).double()

    def loss(rays: Tensor, r: Tensor) -> Tensor:
        frequency = torch.arange(1, 7).double()
        waving = waves[rays] * ((frequency * r[:, None] * 4 + phases[rays]).sin() - phases[rays].sin())
        return waving.sum(1) + 1.5 * r

    scan = ScanParams(steps=400, smallest=0.01, tolerance=1e-7)
    measured = radii(loss, torch.ones(50).double(), [0.8], scan)
    grid = torch.linspace(0, 1, 20_001).double()[1:]
    for ray in range(50):
        above = loss(torch.full((len(grid),), ray), grid) >= 0.8
        assert bool(measured.censored[0, ray]) == (not above.any())
        first = grid[above.int().argmax()] if above.any() else 1.0
        assert measured.radius[0, ray].item() == pytest.approx(float(first), abs=1e-4)
    assert 0 < measured.censored.sum() < 50 and (measured.crossings > 1).any()


def test_rays_do_not_know_of_each_other():
    curvature = slopes(40)
    caps = torch.linspace(0.3, 1, 40).double()
    whole = radii(lambda rays, r: curvature[rays] * r**3, caps, [0.4, 0.9], ScanParams())
    alone = radii(lambda rays, r: curvature[rays + 17] * r**3, caps[17:18], [0.4, 0.9], ScanParams())
    assert torch.equal(whole.radius[:, 17:18], alone.radius)


@pytest.mark.parametrize("centre", [1.0, 1.5, math.nan])
def test_a_cut_that_the_centre_has_reached_is_refused(centre):
    refusal = refused_cut(1.0, centre, "net")
    assert refusal is not None
    assert f"cuts must be above {centre:g}, the loss of net at its own weights; it is 1" in refusal.message
    assert refused_cut(1.0, 0.99, "net") is None
