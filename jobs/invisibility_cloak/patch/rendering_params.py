"""What a spec says about how a patch is drawn."""

from typing import Self

from pydantic import Field, model_validator

from jobs.common.params import StudyParams
from service.errors import FieldError


class RenderingParams(StudyParams):
    """How a patch is drawn on a person. The random parts hold while it is optimised, and in tests if they are asked."""

    scale: float = Field(0.22, gt=0, le=2, description="width of the patch, in diagonals of the box")
    median: int = Field(7, ge=1, le=31, description="side of its median filter, in pixels of the patch; odd; 1: none")
    contrast: tuple[float, float] = Field(
        (0.8, 1.2), description="what its colours are multiplied with, from and to, at random"
    )
    brightness: float = Field(0.1, ge=0, le=1, description="what is added to them, at most, of a range of 1; random")
    noise: float = Field(0.0, ge=0, le=1, description="uniform noise added to each pixel of the patch, at most; random")
    wrinkle: float = Field(
        0.05, ge=0, le=0.2, description="by how much a thin-plate spline moves its points, of its sides; random"
    )
    perspective: float = Field(
        0.1, ge=0, le=0.9, description="how far its corners move inward, of half its sides, at most; random"
    )
    rotation: float = Field(5.0, ge=0, le=180, description="degrees by which it is turned, at most; random")
    lift: float = Field(0.05, ge=0, le=1, description="by how much of the box it is moved up, at most; random")
    smallest: float = Field(10.0, ge=1, description="diagonal of a box, in pixels, below which no patch is drawn")
    most: int = Field(200, ge=1, le=10_000, description="patches of an image in a test; more boxes are left without")
    most_in_search: int = Field(8, ge=1, le=10_000, description="the same while it is optimised; which boxes is random")
    samples: int = Field(
        1, ge=1, le=8, description="samples of the patch for a pixel, along each side; the paper's code has 1"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.median % 2 == 0:
            raise FieldError("median", "be odd", self.median)
        if not 0 < self.contrast[0] <= self.contrast[1]:
            raise FieldError("contrast", "ascend, from above 0", self.contrast)
        return self
