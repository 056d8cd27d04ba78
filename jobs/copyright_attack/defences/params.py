"""What a spec says of defences."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from jobs.common.params import ONCE, StudyParams
from jobs.copyright_attack.judges.neural.params import AdversarialParams
from service.errors import FieldError


class JitterParams(StudyParams):
    """Several copies of the peaks of a query, each of other peaks and moved at random, all looked up together."""

    copies: int = Field(4, ge=1, le=100, description="of the peaks, besides those of the judge without a defence")
    bins: int = Field(1, ge=0, le=20, description="that a peak is moved up or down, at most")
    frames: int = Field(0, ge=0, le=20, description="that a peak is moved in time, at most")
    density: tuple[float, float] = Field(
        (1.0, 2.0), description="peaks that are kept, as a multiple of the judge's own, from and to"
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        low, high = self.density
        if not 0 < low <= high <= 10:
            raise FieldError("density", "go from above 0 up to at most 10", self.density)
        return self


class WhiteBoxParams(StudyParams):
    """An attack on the neural fingerprints themselves: the excerpt is made as unlike itself as a bound allows."""

    epsilons: Annotated[tuple[float, ...], ONCE] = Field(
        (0.005, 0.02), min_length=1, max_length=20, description="bounds of a sample's change, of full scale"
    )
    steps: int = Field(20, ge=1, le=10_000, description="of gradient ascent")

    @model_validator(mode="after")
    def _sizes(self) -> Self:
        for epsilon in self.epsilons:
            if not 0 < epsilon <= 1:
                raise FieldError("epsilons", "be above 0 and at most 1", epsilon)
        return self


class DefenceParams(StudyParams):
    """Defences that are measured beside the judges without them."""

    jitter: JitterParams | None = Field(JitterParams(), description="of the judge wang; none: not measured")
    adversarial: AdversarialParams | None = Field(
        AdversarialParams(), description="training of the judge neural against perturbations; none: not measured"
    )
    votes: Annotated[tuple[int, ...], ONCE] = Field(
        (2,), max_length=10, description="how many judges without a defence have to name one song"
    )
    white_box: WhiteBoxParams | None = Field(
        WhiteBoxParams(), description="an attack on the neural fingerprints themselves; none: not made"
    )

    @model_validator(mode="after")
    def _votes(self) -> Self:
        for needed in self.votes:
            if needed < 1:
                raise FieldError("votes", "be at least 1", needed)
        return self
