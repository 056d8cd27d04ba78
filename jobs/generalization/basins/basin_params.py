"""What a spec says about basins: rays, volumes and learning coefficients."""

import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from jobs.common.estimation import TRAINING
from jobs.common.params import ONCE, StudyParams
from jobs.generalization.basins.learning_coefficient import LangevinParams
from jobs.generalization.basins.preconditioner import PreconditionerParams
from jobs.generalization.basins.radius import ScanParams
from jobs.generalization.basins.rays import Convention
from service.errors import FieldError


class PriorParams(StudyParams):
    """The mass of a basin under a Gaussian prior of the weights, around 0."""

    deviation: float | None = Field(
        None, gt=0, description="standard deviation of each weight; none: the root mean square of the network's own"
    )


class BasinParams(StudyParams):
    """The basin around each network: the weights around it at which the loss stays below a cut."""

    rays: int = Field(500, ge=2, le=1_000_000, description="random rays for each convention")
    directions: Annotated[tuple[Convention, ...], ONCE] = Field(
        ("filter",),
        min_length=1,
        description="conventions of the rays. filter: a unit vector for each filter, times its norm; gaussian: a unit "
        "vector in units of the filters' norms, which gives exact volumes; adam, hessian: the same volumes, with rays "
        "that are long where the loss is flat",
    )
    quantity: Literal["loss", "kl"] = Field(
        "loss",
        description="what is cut: the mean cross entropy, or the mean divergence of the predictions from the network's "
        "own, KL(own || moved), in nats",
    )
    cuts: Annotated[tuple[float, ...], ONCE] = Field(
        (1.0,), min_length=1, max_length=20, description="where the basin ends, in nats"
    )
    cuts_from: Literal["zero", "centre"] = Field(
        "zero", description="centre: the cuts are added to the loss of the network itself"
    )
    cap: float = Field(1.0, gt=0, le=1000, description="how far filters are moved at most, in units of their norms")
    scan: ScanParams = Field(ScanParams(), description="how a radius is sought")
    preconditioner: PreconditionerParams = Field(PreconditionerParams(), description="of the directions adam, hessian")
    prior: PriorParams | None = Field(
        None, description="also the mass under a Gaussian prior, of all directions but filter; none: no"
    )
    learning_coefficient: LangevinParams | None = Field(
        None, description="also the local learning coefficient, by Langevin dynamics; none: no"
    )
    images: int | None = Field(
        None, ge=2, description="images that the loss is the mean over, the same for all networks; none: all"
    )
    rays_per_cell: int = Field(100, ge=1, le=100_000, description="rays that a worker measures at a time")

    @property
    def cells(self) -> int:
        """Pieces of work that can be computed at the same time."""
        return len(self.directions) * math.ceil(self.rays / self.rays_per_cell)

    @property
    def passes(self) -> int:
        """How often each image is shown: along rays, and three times as much for each step of a chain."""
        halvings = math.log2(self.scan.smallest ** (-1 / (self.scan.steps - 1)) / self.scan.tolerance)
        count = self.rays * len(self.directions) * (self.scan.steps + len(self.cuts) * max(halvings, 0))
        if (chains := self.learning_coefficient) is not None:
            count += TRAINING * (chains.chains + 1) * (chains.burn_in + chains.draws)
        return math.ceil(count)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if min(self.cuts) <= 0:
            raise FieldError("cuts", "be above 0", list(self.cuts))
        if self.prior is not None and set(self.directions) == {"filter"}:
            raise FieldError("directions", "be others than filter alone, as there is a prior", list(self.directions))
        return self
