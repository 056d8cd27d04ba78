"""What is computed of the curvature at a network, as a section of a spec."""

from pydantic import Field

from jobs.common.curvature.coordinates import Coordinates
from jobs.common.curvature.sharpness import Ball
from jobs.common.params import StudyParams


class SharpnessParams(StudyParams):
    """How far the loss rises near the weights, in coordinates that do not depend on their scale."""

    coordinates: Coordinates = Field(
        "elementwise",
        description="elementwise: relative to each weight, which is adaptive; filter: to the norm of its filter; "
        "weights: as they are",
    )
    worst_radius: float = Field(0.5, gt=0, le=1e3, description="of the ball in which the largest loss is sought")
    ball: Ball = Field("L2", description="L2 or Linf: the norm of that ball")
    steps: int = Field(20, ge=2, le=10_000, description="gradients of a search")
    restarts: int = Field(2, ge=1, le=100, description="searches, from random points; the largest loss counts")
    average_radius: float = Field(
        0.05, gt=0, le=1e3, description="standard deviation of random steps, over which the loss is averaged"
    )
    samples: int = Field(20, ge=2, le=100_000, description="random steps")


class SpectraParams(StudyParams):
    """The Hessian at the network: eigenvalues, trace and spectral density, of the whole and of each layer."""

    images: int = Field(1000, ge=1, description="images that it is computed on, at most")
    coordinates: Coordinates = Field(
        "weights",
        description="of the weights. weights: as they are; filter: relative to the norm of a weight's filter; "
        "elementwise: relative to its magnitude",
    )
    top: int = Field(5, ge=1, le=100, description="largest eigenvalues, each with its residual")
    bottom: int = Field(1, ge=1, le=100, description="smallest eigenvalues")
    tolerance: float = Field(0.01, gt=0, lt=1, description="of eigenvalues, relative to the width of the spectrum")
    trace_probes: int = Field(30, ge=2, le=100_000, description="random vectors that the trace is estimated with")
    density_probes: int = Field(4, ge=2, le=1000, description="random vectors that the density is estimated with")
    density_steps: int = Field(30, ge=2, le=1000, description="Lanczos steps of each, with a product each")
    layers: bool = Field(
        True, description="eigenvalues and density also of each layer; its trace costs nothing and is always there"
    )
    sharpness: SharpnessParams | None = Field(SharpnessParams(), description="also adaptive sharpness; none: no")

    def products(self, layers: int) -> float:
        """Products of the Hessian with a vector for each image, about. layers: of the network.

        Eigenvalues are counted with iterations that settle at once; a gradient counts as a third of a product.
        """
        lanczos = 2 * RESTART + self.density_probes * self.density_steps
        whole = lanczos + RESTART + self.trace_probes
        slopes = 0 if self.sharpness is None else self.sharpness.restarts * self.sharpness.steps
        passes = 0 if self.sharpness is None else self.sharpness.samples
        return whole + (layers * lanczos if self.layers else 0) + slopes / 3 + passes / 9


PRODUCT = 9  # passes: a gradient takes three multiplications a weight, and each is differentiated by both factors
RESTART = 33  # products for a few eigenvalues at one end of a spectrum, as measured on networks of digits
