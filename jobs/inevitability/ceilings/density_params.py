"""Estimates of the density of a class, as sections of a spec."""

from abc import abstractmethod
from typing import Annotated, Literal

from pydantic import Field

from jobs.common.params import StudyParams
from jobs.inevitability.density.estimate import DensityEstimate, Images, on_grid
from jobs.inevitability.density.gaussian import gaussian
from jobs.inevitability.density.likelihood import from_likelihood, gaussian_likelihood
from jobs.inevitability.density.neighbours import nearest_neighbours
from jobs.inevitability.density.noise import noise_expanded
from jobs.inevitability.density.quantised import quantised


class Density(StudyParams):
    """A way to the peak of the density of a class relative to the uniform one, in logarithms: log U."""

    kind: str = Field(description="the name of the method")

    @abstractmethod
    def estimates(self, images: Images, seed: int) -> tuple[DensityEstimate, ...]:
        """What it says of images of one class, (count, n). FieldError: there are too few of them."""


class NearestNeighbours(Density):
    """By the smallest distance to a k-th neighbour."""

    kind: Literal["nearest_neighbours"] = Field("nearest_neighbours", description="by distances to neighbours")
    k: int = Field(5, ge=1, le=1000, description="which neighbour; it plays the part of a bandwidth")

    def estimates(self, images: Images, seed: int) -> tuple[DensityEstimate, ...]:
        return (nearest_neighbours(images, self.k),)


class Gaussian(Density):
    """The peak of a Gaussian with the mean and covariance of the images."""

    kind: Literal["gaussian"] = Field("gaussian", description="the peak of a Gaussian fit")
    step: float | None = Field(
        None, gt=0, le=1, description="of the grid that pixel values are on, 1/255 for 8 bits; none: continuous"
    )
    shrinkage: float = Field(0.0, ge=0, le=1, description="of the covariance towards its diagonal")

    def estimates(self, images: Images, seed: int) -> tuple[DensityEstimate, ...]:
        return (gaussian(images, self.step, self.shrinkage),)


class Quantised(Density):
    """Each image spread over its cell of the grid of pixel values, and nothing else."""

    kind: Literal["quantised"] = Field("quantised", description="the images themselves, spread over their cells")
    levels: int = Field(256, ge=2, description="values that a pixel can have")

    def estimates(self, images: Images, seed: int) -> tuple[DensityEstimate, ...]:
        return quantised(images, self.levels)


class Noise(Density):
    """Whatever the images are, once uniform noise is added."""

    kind: Literal["noise"] = Field("noise", description="after uniform noise: certain, for the images with noise")
    amplitude: float = Field(0.1, gt=0, le=0.5, description="of the noise in each pixel")

    def estimates(self, images: Images, seed: int) -> tuple[DensityEstimate, ...]:
        return (noise_expanded(images.shape[1], self.amplitude),)


class Likelihood(Density):
    """From below, by the likelihood of a Gaussian on images that it was not fitted to."""

    kind: Literal["likelihood"] = Field("likelihood", description="from below, by the likelihood of a Gaussian")
    levels: int = Field(256, ge=2, description="values that a pixel can have")

    def estimates(self, images: Images, seed: int) -> tuple[DensityEstimate, ...]:
        return (gaussian_likelihood(images, seed, self.levels),)


class BitsPerDimension(Density):
    """From below, by the likelihood of a model, as published for images of one class."""

    kind: Literal["bits"] = Field("bits", description="from below, by bits per dimension of a model as published")
    bits: float = Field(gt=0, le=64, description="bits per dimension of images that the model did not learn")
    levels: int = Field(256, ge=2, description="values that a pixel can have")

    def estimates(self, images: Images, seed: int) -> tuple[DensityEstimate, ...]:
        rounded = not on_grid(images, self.levels)
        return (from_likelihood(self.bits, images.shape[1], self.levels, rounded=rounded),)


class Known(Density):
    """A density that is known, as that of data that were drawn from it."""

    kind: Literal["known"] = Field("known", description="known, as of data that were drawn from it")
    log_density: float = Field(ge=0, description="log U: 0 for the uniform density")

    def estimates(self, images: Images, seed: int) -> tuple[DensityEstimate, ...]:
        return (
            DensityEstimate(
                method="known",
                kind="upper bound",
                log_density=self.log_density,
                setting="as the spec says",
                dimension=images.shape[1],
            ),
        )


DensityParams = Annotated[
    NearestNeighbours | Gaussian | Quantised | Noise | Likelihood | BitsPerDimension | Known,
    Field(discriminator="kind"),
]
