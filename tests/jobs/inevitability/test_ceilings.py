"""Ceilings against closed forms, and the alarm above one."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from scipy.special import ndtri_exp
from scipy.stats import norm as normal
from torch import nn

from jobs.common.data.images.base import Pixels
from jobs.common.data.images.half_cubes import HalfCubes
from jobs.common.data.images.relabelled import with_classes
from jobs.inevitability.ceilings import bounds, concentration
from jobs.inevitability.ceilings.bound_params import BoundParams
from jobs.inevitability.ceilings.ceiling import Ceiling, alarms
from jobs.inevitability.ceilings.concentration_params import ConcentrationParams
from jobs.inevitability.ceilings.density_params import (
    BitsPerDimension,
    Gaussian,
    Known,
    Likelihood,
    NearestNeighbours,
    Noise,
    Quantised,
)
from jobs.inevitability.networks import Variant
from service.errors import InputError
from tests.jobs.inevitability.test_curves import curve

KNOWN = BoundParams(densities=(Known(log_density=math.log(2)),))


def test_a_ceiling_between_its_epsilons_is_that_of_the_one_before() -> None:
    one = Ceiling("bound", "one", "L2", (0.1, 0.2), (0.8, 0.3), certain=True)
    assert one.at([0.0, 0.05, 0.1, 0.15, 0.2, 0.9]).tolist() == [1.0, 1.0, 0.8, 0.8, 0.3, 0.3]


def test_what_is_above_a_ceiling_beyond_its_interval_raises_the_alarm() -> None:
    """90 of 100 images: the exact interval begins at 0.824."""
    flags = [[1] * 95 + [0] * 5, [1] * 90 + [0] * 10]
    measured = curve(flags, (0.0, 0.1))

    def raised(value: float, certain: bool = True, least_error: float = 0.0, resolution: int = 1) -> list[str]:
        at = curve(flags, (0.0, 0.1 * resolution), resolution=resolution)
        return alarms([at], [Ceiling("bound", "b", "L2", (0.1,), (value,), certain, least_error)])

    assert raised(0.83) == []
    (sentence,) = raised(0.82)
    assert sentence.startswith("net at resolution 1 keeps 90.0% in L2 at epsilon 0.1, above the ceiling of 82.0% (b)")
    assert "the data are not what the bound supposes" in sentence
    assert "rests on an estimate" in raised(0.82, certain=False)[0]
    assert raised(0.82, least_error=0.06) == [], "its error is 5 %: it is no ceiling of this network"
    assert len(raised(0.82, least_error=0.05)) == 1
    assert len(raised(0.82, resolution=2)) == 1, "at 0.2, where pixels are replicated: it is 0.1 of the small images"
    assert alarms([measured], [Ceiling("bound", "b", "Linf", (0.1,), (0.1,), True)]) == [], "another norm"


def test_the_ceiling_of_half_cubes_is_that_of_the_formula(make_run) -> None:
    """A density of 2 on half of the cube: 2 Phi(-sqrt(2 pi) epsilon) in L2 and in Linf, whatever the dimension."""
    images, handle = HalfCubes("test", 8), make_run()
    estimates = bounds.densities(KNOWN, images, images, handle)
    assert [each.estimate.log_density for each in estimates] == [math.log(2)] * 2
    epsilons = {"L2": (0.2, 0.4), "Linf": (0.1, 0.3)}
    found = bounds.bounds(KNOWN, list(epsilons), estimates, {})
    for ceiling in bounds.ceilings(found, epsilons, images):
        expected = [min(1, 2 * normal.cdf(-math.sqrt(2 * math.pi) * each)) for each in epsilons[ceiling.norm]]
        assert ceiling.values == pytest.approx(expected, rel=1e-12) and ceiling.certain
    rows = [each.row(images.classes) for each in found]
    assert {row["verdict"] for row in rows} == {"useful"} and {row["conclusion"][:7] for row in rows} == {"certain"}


def test_each_density_has_a_ceiling_of_its_own(make_run) -> None:
    """Also two of one kind."""
    images = HalfCubes("test", 8)
    params = BoundParams(densities=(Known(log_density=math.log(2)), Known(log_density=math.log(3))))
    estimates = bounds.densities(params, images, images, make_run())
    ceilings = bounds.ceilings(bounds.bounds(params, ["L2"], estimates, {}), {"L2": (0.4,)}, images)
    tail = normal.cdf(-math.sqrt(2 * math.pi) * 0.4)
    assert [each.values for each in ceilings] == [pytest.approx((2 * tail,)), pytest.approx((3 * tail,))]
    assert [each.label for each in ceilings] == [f"bound, density known (densities.{place})" for place in (0, 1)]


def test_the_first_pixel_of_half_cubes_decides() -> None:
    """The best classifier keeps 1 - 2 epsilon in every norm: below the ceiling, and near it for small epsilons."""
    images = HalfCubes("test", 8)
    pixels = images.images(torch.arange(len(images)))
    for epsilon in (0.05, 0.1, 0.2):
        kept = float(((pixels[:, 0, 0, 0] - 0.5).abs() > epsilon).double().mean())
        assert kept == pytest.approx(1 - 2 * epsilon, abs=0.05)
        assert kept <= 2 * normal.cdf(-math.sqrt(2 * math.pi) * epsilon) + 0.05
    assert 0.45 < float(images.labels.double().mean()) < 0.55


def test_noise_moves_the_ceiling_by_what_it_moves_pixels() -> None:
    """Half of the noise's range is the whole range: the density is then 1, and the noise reaches 1 a pixel."""
    images = HalfCubes("test", 8)
    (noise,) = Noise(amplitude=0.01).estimates(np.zeros((3, 64)), 0)
    density = bounds.ClassDensity(0, noise)
    (found,) = bounds.bounds(KNOWN, ["L2"], [density], {})
    assert found.shift == pytest.approx(0.02 * 8), "of 64 pixels in L2"
    assert noise.log_density == pytest.approx(-64 * math.log(0.02))
    reached = found.bound.first_useful
    assert found.first_useful == pytest.approx(reached + 0.16)
    below, above = found.ceiling([0.1, min(8.0, reached + 0.16 + 0.5)])
    assert below == 1 and above == pytest.approx(float(found.bound.ceiling(min(8 - 0.16, reached + 0.5))))
    (ceiling,) = bounds.ceilings([found], {"L2": (0.1,)}, images)
    assert ceiling.values == (1.0,), "of the other class nothing is known"


@pytest.mark.parametrize(("amplitude", "kind"), [(0.05, "useful"), (0.025, "vacuous")])
def test_the_verdict_is_about_the_images_without_noise(amplitude: float, kind: str) -> None:
    """In L2 two images are at most 8 apart; the theorem speaks of noisy ones where Phi(-sqrt(2 pi) s) = 1 / U."""
    (noise,) = Noise(amplitude=amplitude).estimates(np.zeros((3, 64)), 0)
    (bound,) = bounds.bounds(KNOWN, ["L2"], [bounds.ClassDensity(0, noise)], {})
    start = -ndtri_exp(64 * math.log(2 * amplitude)) / math.sqrt(2 * math.pi) + 8 * 2 * amplitude
    row = bound.row(["the first"])
    assert bound.bound.verdict().kind == "useful" and row["verdict"] == kind == ("useful" if start < 8 else "vacuous")
    assert row["sentence"].startswith(kind) and row["first_useful"] == pytest.approx(start)


def test_shares_are_the_largest_that_a_network_may_give() -> None:
    density = bounds.ClassDensity(0, Known(log_density=1.0).estimates(np.zeros((1, 4)), 0)[0])
    counted = {"one": (bounds.ClassShare(10, 100),), "other": (bounds.ClassShare(30, 100),)}
    (found,) = bounds.bounds(KNOWN, ["Linf"], [density], {(): counted})
    assert found.bound.share == pytest.approx(bounds.ClassShare(30, 100).upper) and found.bound.share > 0.3
    rows = bounds.share_rows(counted, ("a",))
    assert [(row["network"], row["class"], row["share"]) for row in rows] == [("one", "a", 0.1), ("other", "a", 0.3)]
    assert rows[0]["low"] < 0.1 < rows[0]["high"]


def brighter_than(level: float, classes: Sequence[str]) -> Variant:
    """A network whose first class is that of images with a first pixel above a level."""
    layer = nn.Linear(64, 2)
    with torch.no_grad():
        layer.weight.zero_()[0, 0] = 1.0
        layer.bias.copy_(torch.tensor([0.0, level]))
    images = with_classes(HalfCubes("test", 8), classes, "half_cubes", "the network")
    return Variant("net", "given", 1, nn.Sequential(nn.Flatten(), layer).eval(), images)


def test_shares_are_those_of_the_classes_of_the_data(make_run) -> None:
    """In whatever order the network names them; of a class that it does not name it has nothing."""
    network, classes = brighter_than(0.9, ("bright", "dark")), ("dark", "grey", "bright")
    counted = bounds.shares(BoundParams(samples=2000), [], classes, [network], make_run())[()]["net"]
    assert [each.estimate for each in counted] == pytest.approx([0.9, 0.0, 0.1], abs=0.03)
    rows = bounds.share_rows({"net": counted}, classes)
    assert [row["class"] for row in rows] == list(classes) and rows[1]["share"] == 0


def test_shares_are_those_of_the_face_that_a_density_is_about(make_run) -> None:
    """The first pixel of a class is 0 in all images, and decides: by changes of others no network can be fooled."""
    network, params = brighter_than(0.5, ("bright", "dark")), BoundParams(densities=(Gaussian(),), samples=500)
    pixels = (255 * HalfCubes("test", 8).images(torch.arange(200))).round().to(torch.uint8)
    pixels[:, 0, 0, 0] = 0
    images = Pixels("dark", ("dark", "bright"), pixels, torch.zeros(200, dtype=torch.int64))
    (density,) = bounds.densities(params, images, images, make_run())
    assert density.estimate.dropped == ((0, 0.0),) and density.estimate.dimension == 63
    counted = bounds.shares(params, [density], images.classes, [network], make_run())
    assert counted[()]["net"][0].estimate == pytest.approx(0.5, abs=0.1)
    assert [each.estimate for each in counted[density.estimate.dropped]["net"]] == [1, 0]
    (bound,) = bounds.bounds(params, ["L2"], [density], counted)
    assert bound.bound.share == 1 and bound.ceiling([0.1, 7.0]).tolist() == [1, 1]
    assert "labels all of the space as the class" in bound.verdict.sentence


@pytest.mark.parametrize(
    "density",
    [NearestNeighbours(k=3), Gaussian(), Quantised(levels=17), Noise(), Likelihood(), BitsPerDimension(bits=3.0)],
    ids=lambda each: each.kind,
)
def test_every_way_to_a_density_says_what_it_is(density, make_run) -> None:
    images = HalfCubes("test", 8)
    params = BoundParams(densities=(density,))
    estimates = bounds.densities(params, images, images, make_run())
    assert len(estimates) == (4 if density.kind == "quantised" else 2)
    for each in estimates:
        assert each.estimate.log_density >= 0 and each.estimate.dimension == 64 and each.estimate.setting


def test_a_class_of_too_few_images(make_run) -> None:
    images = HalfCubes("test", 8)
    with pytest.raises(InputError, match="images of a class must be at least 1001 for this estimate; it is"):
        bounds.densities(BoundParams(densities=(NearestNeighbours(k=1000),)), images, images, make_run())


def row(search: str, epsilon: float, ceiling: float, holds: bool = True, norm: str = "L2") -> dict[str, object]:
    return {"search": search, "norm": norm, "epsilon": epsilon, "ceiling": ceiling, "holds": holds, "gamma": None}


def test_the_best_region_that_holds_its_mass_makes_the_ceiling() -> None:
    rows = [
        *(row("a", 0.1, 0.9), row("a", 0.1, 0.8), row("b", 0.1, 0.8)),
        *(row("a", 0.2, 0.5), row("b", 0.2, 0.6), row("b", 0.2, 0.99, holds=False)),
        *(row("a", 0.3, 0.7), row("a", 0.1, 0.5, norm="Linf")),
    ]
    l2, linf = concentration.ceilings(ConcentrationParams(alpha=0.1), rows)
    assert l2.epsilons == (0.1, 0.2, 0.3)
    assert l2.values == pytest.approx((0.85, 0.7, 0.7)), "the region for 0.3 grows even less by 0.2"
    assert linf.values == (0.5,) and not l2.certain and l2.least_error == 0.1


def test_half_spaces_of_half_cubes(make_run) -> None:
    """Half-spaces of uniform points: {x1 < alpha} grows by epsilon, as no other region across an axis does."""
    images = HalfCubes("test", 8)
    params = ConcentrationParams(alpha=0.2, seeds=(0, 1))
    epsilons = {"Linf": (0.1, 0.2)}
    prepared = concentration.prepared(params, epsilons, images, images)
    rows = concentration.measured(params, epsilons, prepared, make_run())
    assert [(each["seed"], each["epsilon"]) for each in rows] == [(0, 0.1), (0, 0.2), (1, 0.1), (1, 0.2)]
    (ceiling,) = concentration.ceilings(params, rows)
    assert ceiling.values[0] == pytest.approx(1 - 0.3, abs=0.06) and ceiling.values[1] == pytest.approx(0.6, abs=0.08)
