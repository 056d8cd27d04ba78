"""Networks for concentric spheres, and how they are measured, as a section of a spec."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from jobs.common.params import ONCE, StudyParams
from jobs.common.training.optimizers import OptimizerParams
from service.errors import FieldError


class SpheresParams(StudyParams):
    """Two spheres around 0, the inner one of radius 1. Each dimension and seed is a network of its own.

    Source: Gilmer et al. 2018 ("Adversarial spheres"), section 3: 500 dimensions, radius 1.3, two hidden layers of
    1,000.
    """

    dimensions: Annotated[tuple[Annotated[int, Field(ge=2, le=10_000)], ...], ONCE] = Field(
        (20, 50, 100), min_length=1, max_length=20, description="of the space; each with networks of its own"
    )
    radius: float = Field(1.3, gt=1, le=10, description="of the outer sphere")
    width: int = Field(200, ge=1, le=10_000, description="units of each hidden layer, rectified")
    layers: int = Field(2, ge=1, le=10, description="hidden layers")
    updates: int = Field(1000, ge=1, le=10_000_000, description="weight updates, each on points that are new")
    batch: int = Field(64, ge=2, le=100_000, description="points of an update, half of them of each sphere")
    optimizer: OptimizerParams = Field(OptimizerParams(weight_decay=0.0), description="how the weights are moved")
    samples: int = Field(
        100_000, ge=1, le=100_000_000, description="points of each sphere, by which errors are counted"
    )
    attacked: int = Field(
        200, ge=1, le=100_000, description="points of each sphere of which the nearest error is sought"
    )
    steps: int = Field(100, ge=1, le=100_000, description="steps of the search for an error, and then for a nearer one")
    seeds: Annotated[tuple[int, ...], ONCE] = Field(
        (0,), min_length=1, max_length=100, description="of the networks and of all points"
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.batch % 2:
            raise FieldError("batch", "be even, half of it of each sphere", self.batch)
        return self
