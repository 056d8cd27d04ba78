"""The section `wiggle` of a spec."""

import numpy as np
from pydantic import Field

from jobs.common.params import StudyParams

POWER = 5  # of where frames lie along the direction: many of them are near the minimum


class WiggleParams(StudyParams):
    """Weights that move there and back along a random direction, rescaled by filters, as an animation of the plane."""

    frames: int = Field(41, ge=3, le=1001, description="places along the direction, more of them near the middle")
    span: float = Field(1.0, gt=0, le=100, description="from the first place to the last, in units of the direction")
    steps: int = Field(100, ge=2, le=1000, description="points of the map along each side of the frame of the data")
    draw: int = Field(0, ge=0, description="another number draws another direction")

    @property
    def places(self) -> np.ndarray:
        """float64 (frames,), from -span/2 to span/2."""
        places: np.ndarray = self.span / 2 * np.linspace(-1, 1, self.frames) ** POWER
        return places
