"""What a network is to withstand: the ball around each image that training and validation look for adversaries in."""

from typing import Literal

from pydantic import Field

from jobs.common.attacks.ball import Ball
from jobs.common.params import StudyParams


class ThreatParams(StudyParams):
    """The threat model. Natural training is measured by it without being trained for it."""

    norm: Literal["Linf", "L2"] = Field("Linf", description="how the size of a perturbation is measured")
    epsilon: float = Field(gt=0, description="radius, for pixels in [0, 1]: 8 of 255 is 0.0314")

    @property
    def ball(self) -> Ball:
        """InputError if epsilon is beyond the pixels."""
        return Ball(self.norm, self.epsilon)
