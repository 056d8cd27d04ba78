"""Learning rates: how they rise at the start of training, and how they fall towards its end.

A factor of the full rate is a function of the tick: a weight update or an epoch, as the study says where it has an
optimizer. Nothing here keeps state between ticks, so a resumed run has the same rates.
"""

import math
from typing import Annotated, Literal

from pydantic import Field

from jobs.common.params import StudyParams


class WarmUp(StudyParams):
    """Small learning rates at the start of training."""

    kind: Literal["none", "linear", "exponential"] = Field("none", description="how the rate rises to its full value")
    period: int = Field(10, ge=1, description="ticks of the optimizer until the full rate")

    def factor(self, tick: int) -> float:
        """What the learning rate is multiplied with, in (0, 1].

        exponential: 1 - exp(-(tick + 1) / period), and 1 from tick = period - 1 (Bansal et al. 2022, released code).
        """
        if self.kind == "none" or tick + 1 >= self.period:
            return 1.0
        progress = (tick + 1) / self.period
        return progress if self.kind == "linear" else 1 - math.exp(-progress)


class StepDecay(StudyParams):
    """Divide the learning rate at given ticks."""

    kind: Literal["step"] = Field("step", description="divide the rate at given ticks")
    milestones: tuple[Annotated[int | float, Field(ge=0)], ...] = Field(
        (), description="ticks of the optimizer from which the rate is decayed; below 1: shares of the training"
    )
    factor: float = Field(0.1, gt=0, le=1, description="what the rate is multiplied with at each milestone")

    def at(self, tick: int, ticks: int) -> float:
        """What the learning rate is multiplied with, in (0, 1]. ticks: how many there are in all."""
        passed = [tick >= (each * ticks if each < 1 else each) for each in self.milestones]
        return self.factor ** sum(passed)


class CosineDecay(StudyParams):
    """Half a cosine wave from the full learning rate down to zero (Loshchilov & Hutter 2017, equation 5)."""

    kind: Literal["cosine"] = Field("cosine", description="half a cosine wave down to zero")

    def at(self, tick: int, ticks: int) -> float:
        """What the learning rate is multiplied with, in [0, 1]. ticks: how many there are in all."""
        return 0.5 * (1 + math.cos(math.pi * tick / ticks))


class LinearDecay(StudyParams):
    """A straight line from the full learning rate down to zero. After a linear warm-up: the triangle of Smith 2017."""

    kind: Literal["linear"] = Field("linear", description="a straight line down to zero")
    start: int = Field(0, ge=0, description="tick of the optimizer at which the rate begins to fall")

    def at(self, tick: int, ticks: int) -> float:
        """What the learning rate is multiplied with, in [0, 1]. ticks: how many there are in all."""
        return 1.0 if tick <= self.start else (ticks - tick) / (ticks - self.start)


class PolyDecay(StudyParams):
    """A power of what is left of training, from the full learning rate down to zero (Chen et al. 2017, section 4.1)."""

    kind: Literal["poly"] = Field("poly", description="a power of what is left of training, down to zero")
    power: float = Field(0.9, gt=0, le=10, description="the exponent")

    def at(self, tick: int, ticks: int) -> float:
        """What the learning rate is multiplied with, in [0, 1]. ticks: how many there are in all."""
        return float((1 - tick / ticks) ** self.power)


Decay = Annotated[StepDecay | CosineDecay | LinearDecay | PolyDecay, Field(discriminator="kind")]
