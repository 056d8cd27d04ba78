"""Verdicts in words, hypotheses that fail, and densities for which nothing is said."""

import itertools
import math

import numpy as np
import pytest

from jobs.inevitability.bounds.base import DensityBound
from jobs.inevitability.bounds.cube import CubeBound
from jobs.inevitability.bounds.facts import facts
from jobs.inevitability.bounds.sparse import SparseBound
from jobs.inevitability.bounds.sphere import SphereBound
from service.errors import FieldError

BOUNDS = [CubeBound, SparseBound, SphereBound]


def test_useful() -> None:
    verdict = CubeBound(n=64, log_density=54.09).verdict()
    assert verdict.kind == "useful" and verdict.first_useful == pytest.approx(4.0232, abs=1e-4)
    assert verdict.sentence == "useful from epsilon 4.02321 on in the cube in L2, whose diameter is 8"
    assert CubeBound(n=64).verdict().sentence.startswith("useful at every epsilon in the cube in L2")


def test_at_an_epsilon() -> None:
    bound = CubeBound(n=64, log_density=54.09)
    vacuous = bound.verdict(1.0)
    assert vacuous.kind == "vacuous"
    assert vacuous.sentence == "vacuous at epsilon 1 in the cube in L2: it is useful from epsilon 4.02321 on"
    useful = bound.verdict(5.0)
    share = float(bound.ceiling(5.0))
    assert useful.kind == "useful" and 0 < share < 1
    assert useful.sentence == f"useful at epsilon 5 in the cube in L2: at most {share:.3g} of the class can be robust"


@pytest.mark.parametrize("epsilon", [None, 1.0])
def test_vacuous_everywhere(epsilon: float | None) -> None:
    # 8 bits, one image of its own cell among 6,000: 784 log 256 - log 6000
    verdict = CubeBound(n=784, log_density=784 * math.log(256) - math.log(6_000)).verdict(epsilon)
    assert verdict.kind == "vacuous" and verdict.first_useful == pytest.approx(37.1, abs=0.05)
    assert "it would begin to say something at 37.1" in verdict.sentence and "the diameter is 28" in verdict.sentence


@pytest.mark.parametrize("kind", BOUNDS)
def test_no_density(kind: type[DensityBound]) -> None:
    """Not even where the sphere or the cube is covered: all of the class may be where there is no volume."""
    bound = kind(n=10, log_density=math.inf)
    assert bound.log_ceiling([0.0, 1.0]).tolist() == [math.inf, math.inf]
    assert bound.ceiling(bound.diameter) == 1 and bound.vulnerable(bound.diameter) == 0
    verdict = bound.verdict()
    assert verdict.kind == "vacuous" and verdict.first_useful == math.inf
    assert "the class has no density (images that are equal, or values on a grid); add uniform noise first" in str(
        verdict
    )


@pytest.mark.parametrize("kind", BOUNDS)
def test_a_class_with_more_than_half(kind: type[DensityBound]) -> None:
    """The theorem is silent; the sharp form is not, and says less than for half."""
    printed = kind(n=100, log_density=1.0, share=0.7, form="paper")
    verdict = printed.verdict()
    assert verdict.kind == "not applicable" and printed.ceiling(1.0) == 1
    sentence = "not applicable: the class has a share of 0.7 of the space, and the theorem is for at most 0.5"
    assert verdict.sentence == sentence and facts(printed) == (f"the bound does not apply: {printed.unmet}",)
    more, half = kind(n=100, log_density=1.0, share=0.7), kind(n=100, log_density=1.0)
    assert more.verdict().kind == "useful" and more.first_useful > half.first_useful
    assert more.log_ceiling(1.0) >= half.log_ceiling(1.0)


@pytest.mark.parametrize("kind", BOUNDS)
def test_a_class_with_everything(kind: type[DensityBound]) -> None:
    bound = kind(n=100, share=1.0)
    assert bound.verdict().kind == "not applicable" and "no other class to reach" in bound.verdict().sentence
    assert bound.ceiling(1.0) == 1 and bound.epsilon_for(0.5) == math.inf


@pytest.mark.parametrize("form", ["sharp", "paper"])
@pytest.mark.parametrize("kind", BOUNDS)
def test_a_class_that_is_never_predicted(kind: type[DensityBound], form: str) -> None:
    """All of it is misclassified, whatever its density."""
    bound = kind(n=100, share=0.0, log_density=math.inf, form=form)  # type: ignore[arg-type]
    assert bound.ceiling([0.0, 1.0]).tolist() == [0, 0] and bound.vulnerable(0.0) == 1
    assert bound.first_useful == 0 and bound.verdict(0.0).sentence.endswith("at most 0 of the class can be robust")
    assert facts(bound) == ("no point of the space has the label of the class, so that all of it is misclassified",)


EXTREMES = [0.0, 1e-300, 1e-9, 0.5, 0.7, 1 - 1e-12, 1.0]


@pytest.mark.parametrize("n", [2, 784, 150_528, 10**6])
@pytest.mark.parametrize("log_density", [0.0, 1e-12, 1e3, 1e6, math.inf])
def test_extremes(n: int, log_density: float) -> None:
    """Nothing overflows and nothing is undefined, and what is said of the same set of points agrees."""
    for share, form in itertools.product(EXTREMES, ("sharp", "paper")):
        common = {"n": n, "log_density": log_density, "share": share, "form": form}
        cubes = [CubeBound(**common, p=p) for p in (1e-3, 0.5, 2.0, math.inf)]  # type: ignore[arg-type]
        for bound in (SphereBound(**common), SparseBound(**common), *cubes):  # type: ignore[arg-type]
            epsilons = np.array([0, 1e-300, 1e-9, 0.1, 0.5, 1.0]) * min(bound.diameter, 1e300)
            epsilons = np.unique(np.floor(epsilons)) if isinstance(bound, SparseBound) else epsilons
            values = bound.log_ceiling(epsilons)
            finite = values[np.isfinite(values)]
            assert not np.isnan(values).any() and (np.diff(finite) <= 1e-6).all()
            first, most = bound.first_useful, bound.epsilon_for(0.9)
            assert 0 <= first <= most * (1 + 1e-9) + 1e-12 and facts(bound)
            kind = bound.verdict().kind
            assert (kind == "useful") == (first < bound.diameter) and (kind == "not applicable") == bool(bound.unmet)


def test_shapes() -> None:
    grid = np.array([[0.5, 1.0], [1.5, 2.0]])
    for bound in (CubeBound(n=9), SphereBound(n=9)):
        assert bound.log_ceiling(grid).shape == (2, 2) and bound.log_ceiling(1.0).shape == ()
        assert bound.log_ceiling(grid)[1, 0] == bound.log_ceiling(1.5)


def test_what_is_vacuous_for_every_set_of_images() -> None:
    """The numbers are those of the formulas at the diameter, of 8 bits in all."""
    (paper, beyond) = facts(CubeBound(n=3_072, p=math.inf, form="paper"))
    assert "at 1, the diameter of the cube in Linf, only if log U_c is below 4.9795 (U_c below 145.4)" in paper
    assert "fewer than 7.998 bits per dimension" in beyond
    # -log Phi(-sqrt(2 pi)) in the sharp form, which says a little more
    assert "below 5.1004 (U_c below 164.1)" in facts(CubeBound(n=3_072, p=math.inf))[0]
    # pi n, and a little: 8 - pi / log 2 = 3.468 bits as n grows
    (euclidean, bits) = facts(CubeBound(n=10**6, p=2.0))
    assert f"{8 - math.pi / math.log(2):.4g}" == "3.468" and "fewer than 3.468 bits per dimension" in bits
    assert "at 1000, the diameter of the cube in L2" in euclidean
    assert f"only if log U_c is below {784 - math.log(2):.5g}" in facts(SparseBound(n=784, form="paper"))[0]
    sphere = 783 * math.pi**2 / 8 - math.log(math.pi / 8) / 2
    assert facts(SphereBound(n=784, form="paper"))[0].endswith(f"only if log V_c is below {sphere:.6g}")
    assert "no point of the sphere is farther" in facts(SphereBound(n=784))[0]


def test_nothing_at_all_can_be_said() -> None:
    # s = sqrt(log(100) / 2) is beyond the one pixel that there is
    assert "says nothing even at 1" in facts(SparseBound(n=1, share=0.99))[0]
    with pytest.raises(FieldError, match="levels must be at least 2"):
        facts(CubeBound(n=4), levels=1)
