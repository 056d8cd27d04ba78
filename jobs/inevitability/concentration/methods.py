"""The searches for an error region, each with its parameters, behind one call.

    fits = Boxes(counts=(10,)).fit(train, p=math.inf, alpha=0.05, epsilons=[0.1, 0.2], seed=0)

One fit serves all epsilons, since nearly all of the work is the same for them.
"""

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, TypeVar

import torch
from pydantic import Field

from jobs.common.params import ONCE, StudyParams
from jobs.inevitability.concentration import balls, boxes, half_spaces
from jobs.inevitability.concentration.distances import neighbour_radii
from jobs.inevitability.concentration.regions import Region
from jobs.inevitability.concentration.samples import Sample
from service.errors import FieldError, InputError

AnyFit = TypeVar("AnyFit", balls.Fit, boxes.Fit)

MOST_BYTES = 2 << 30  # of the distances that balls keep


@dataclass(frozen=True)
class Fitted:
    """The region that a search ends with for one epsilon, and how it was reached, by name."""

    region: Region
    details: Mapping[str, float | str]


class Method(StudyParams):
    """The parameters of a search, and the search. Its children say their `kind` and `_fit`."""

    norms: ClassVar[tuple[float, ...]]
    """the p of L_p that it knows; none: any from 1 on"""

    kind: str = Field(description="the name of the search")
    slack: float = Field(
        0.005,
        ge=0,
        lt=1,
        description="share of the points, beyond alpha, that the region is fitted to hold, so that of other points "
        "too it holds a share alpha",
    )

    def knows(self, p: float) -> bool:
        """Whether it searches in L_p."""
        return p >= 1 and (not self.norms or p in self.norms)

    def check(self, points: int, p: float, alpha: float, epsilons: Sequence[float]) -> None:
        """FieldError, one sentence, about the first thing that does not suit. points: how many are fitted to."""
        if not 0 < alpha < 1:
            raise FieldError("alpha", "be above 0 and below 1", alpha)
        if alpha * points < 1:
            raise FieldError("alpha", f"be at least {1 / points:.3g}, one of the {points:,} points of the fit", alpha)
        if alpha + self.slack >= 1:
            raise FieldError("slack", f"be below {1 - alpha:g}, what alpha leaves", self.slack)
        for epsilon in epsilons:
            if not (epsilon >= 0 and math.isfinite(epsilon)):
                raise FieldError("epsilon", "be at least 0 and finite", epsilon)
        if not p >= 1:
            raise FieldError("p", "be at least 1", p)
        if not self.knows(p):
            raise FieldError("norm", f"be {' or '.join(map(norm_name, self.norms))} for {self.kind}", norm_name(p))

    def fit(
        self, train: Sample, p: float, alpha: float, epsilons: Sequence[float], seed: int = 0
    ) -> list[Fitted | None]:
        """A region for each epsilon; None where the search ends without one. The same arguments, the same regions.

        p: of the norm; inf is one. alpha: the share of points that the region holds at least, beside the slack.
        """
        self.check(len(train), p, alpha, epsilons)
        errors = math.ceil(len(train) * (alpha + self.slack) - 1e-6)  # 0.05 of 60,000 is not quite 3,000
        return self._fit(train, p, errors, epsilons, seed)

    @abstractmethod
    def _fit(
        self, train: Sample, p: float, errors: int, epsilons: Sequence[float], seed: int
    ) -> list[Fitted | None]: ...


class HalfSpaces(Method):
    """Half-spaces across principal components and their powers (Prescott et al. 2021), in any L_p with p from 1 on.

    One component without powers is what Mahloujifar et al. 2019 compare with, after Gilmer et al. 2018.
    """

    norms: ClassVar[tuple[float, ...]] = ()

    kind: Literal["half_spaces"] = Field("half_spaces", description="half-spaces across principal components")
    components: int | None = Field(None, ge=1, description="only the first so many by variance; none: all")
    exponents: bool = Field(
        True, description="whether to try powers of the components, which lie along few pixels, and suit Linf"
    )

    def _fit(self, train: Sample, p: float, errors: int, epsilons: Sequence[float], seed: int) -> list[Fitted | None]:
        components = half_spaces.principal_components(train.points)
        if self.components is not None:
            components = components.first(self.components)
        fits = half_spaces.search(train.points, components, p, errors, epsilons, self.exponents)
        return [
            Fitted(fit.region, {"component": fit.component, "exponent": fit.exponent, "sign": fit.sign})
            if fit
            else None
            for fit in fits
        ]


class Balls(Method):
    """A union of balls placed one by one (Mahloujifar et al. 2019); with `gamma` among uncertain labels (Zhang & Evans
    2022, who also use Linf).
    """

    norms: ClassVar[tuple[float, ...]] = (2.0, math.inf, 1.0)

    kind: Literal["balls"] = Field("balls", description="a union of balls around points")
    counts: Annotated[tuple[Annotated[int, Field(ge=1)], ...], ONCE] = Field(
        (5, 10, 15, 20), min_length=1, description="how many balls; the best of these is taken"
    )
    centres: int = Field(
        1000, ge=1, description="how many of the points, drawn at random, are tried as centres; in the sources all"
    )
    gamma: float | None = Field(
        None,
        ge=0,
        le=2,
        description="the least average label uncertainty of the points in the region; none: labels do not matter",
    )

    def check(self, points: int, p: float, alpha: float, epsilons: Sequence[float]) -> None:
        super().check(points, p, alpha, epsilons)
        most = MOST_BYTES // (8 * points)
        if min(self.centres, points) > most:
            requirement = f"be at most {most:,}, whose distances to {points:,} points take 2 GiB"
            raise FieldError("centres", requirement, self.centres)

    def _fit(self, train: Sample, p: float, errors: int, epsilons: Sequence[float], seed: int) -> list[Fitted | None]:
        uncertainty = None
        if self.gamma is not None:
            if train.uncertainty is None:
                raise InputError("gamma asks for uncertain labels; the points have no label uncertainty")
            uncertainty = balls.Uncertainty(train.uncertainty, self.gamma)
        rows = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))[: self.centres].sort().values
        around = balls.neighbourhoods(train.points, rows, p)
        best = [
            _best([balls.search(around, count, errors, epsilon, uncertainty) for count in self.counts])
            for epsilon in epsilons
        ]
        return [Fitted(fit.region, {"balls": len(fit.region.radii)}) if fit else None for fit in best]


class Boxes(Method):
    """The complement of boxes around the densest points (Mahloujifar et al. 2019), in Linf."""

    norms: ClassVar[tuple[float, ...]] = (math.inf,)

    kind: Literal["boxes"] = Field("boxes", description="what lies outside of boxes around the densest points")
    counts: Annotated[tuple[Annotated[int, Field(ge=1)], ...], ONCE] = Field(
        (5, 10, 15, 20), min_length=1, description="how many boxes; the best of these is taken"
    )
    neighbours: int = Field(
        50, ge=1, description="a point is the denser, the nearer its so many-th neighbour is in L1, itself the first"
    )
    iterations: int = Field(30, ge=1, description="of the clustering, at most")

    def check(self, points: int, p: float, alpha: float, epsilons: Sequence[float]) -> None:
        super().check(points, p, alpha, epsilons)
        if self.neighbours > points:
            raise FieldError("neighbours", f"be at most {points:,}, the points of the fit", self.neighbours)

    def _fit(self, train: Sample, p: float, errors: int, epsilons: Sequence[float], seed: int) -> list[Fitted | None]:
        points = train.points.float()
        densest = neighbour_radii(points, self.neighbours).argsort(stable=True)
        clusterings = [boxes.Clusterings(points, densest, count, self.iterations, seed) for count in self.counts]
        best = [_best([boxes.search(each, errors, epsilon) for each in clusterings]) for epsilon in epsilons]
        return [
            Fitted(fit.region, {"boxes": len(fit.region.centres), "densest": fit.densest}) if fit else None
            for fit in best
        ]


MethodParams = Annotated[HalfSpaces | Balls | Boxes, Field(discriminator="kind")]

METHODS: Mapping[str, type[Method]] = {
    method.model_fields["kind"].default: method for method in (HalfSpaces, Balls, Boxes)
}
"""Every search by its kind."""


def norm_name(p: float) -> str:
    """L2, Linf, L1.5."""
    return f"L{p:g}"


def _best(fits: Sequence[AnyFit | None]) -> AnyFit | None:
    """That with the least expansion; of equal ones the first."""
    return min((fit for fit in fits if fit), key=lambda fit: fit.adversarial, default=None)
