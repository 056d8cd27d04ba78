"""Generators of images, and what is measured of these, as sections of a spec."""

from typing import Annotated, Literal

from pydantic import Field

from jobs.common.models.reference import ModelReference
from jobs.common.params import StudyParams
from jobs.inevitability.bounds.base import Form


class LinearGenerator(StudyParams):
    """The mean of the training images, and a Gaussian along each of their first principal components.

    Its Lipschitz constant is known: the standard deviation along the first component.
    """

    kind: Literal["linear"] = Field("linear", description="principal components with Gaussian weights, cut to [0, 1]")
    components: int = Field(20, ge=1, le=100_000, description="how many of them: numbers in a latent vector")


class OwnGenerator(ModelReference):
    """A network from latent vectors to images in [0, 1]."""

    kind: Literal["model"] = Field("model", description="one that is there, by name or by import path")
    latent: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        min_length=1, max_length=4, description="shape of a latent vector, without the batch"
    )
    lipschitz: Literal["layers", "estimate"] = Field(
        "layers",
        description="layers: the product of the constants of its layers, which is sound and often far too large; "
        "estimate: the largest stretch at some latent vectors, which is never too large, so that the bound is an "
        "estimate as well",
    )
    points: int = Field(100, ge=1, le=100_000, description="latent vectors of the estimate")


class GeneratedParams(StudyParams):
    """How far generated images are from another answer, beside what no classifier exceeds, in L2."""

    generator: Annotated[LinearGenerator | OwnGenerator, Field(discriminator="kind")] = Field(
        LinearGenerator(), description="what makes the images of Gaussian noise"
    )
    images: int = Field(200, ge=1, le=1_000_000, description="generated images that are attacked, by curves.attacks")
    samples: int = Field(
        10_000,
        ge=1,
        le=100_000_000,
        description="generated images that are counted to know how much each network gives to each class",
    )
    form: Form = Field("sharp", description="sharp: the best form known; paper: as printed")
