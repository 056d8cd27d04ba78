"""How concentration is measured, as a section of a spec."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from jobs.common.imports import name_of
from jobs.common.params import ONCE, Name, StudyParams
from jobs.inevitability.concentration import Balls, HalfSpaces, MethodParams
from service.errors import FieldError


class ConcentrationParams(StudyParams):
    """Regions that hold a share of the data and grow little: the errors of the most robust network there may be."""

    methods: dict[Name, MethodParams] = Field(
        {"half_spaces": HalfSpaces()}, min_length=1, description="searches for a region, by a name of your choice"
    )
    alpha: float = Field(0.05, gt=0, lt=1, description="share of the data that the region holds: errors of a network")
    parts: Literal["halves", "splits"] = Field(
        "halves",
        description="halves: all images, of which one half is fitted to and the other measured; splits: the images to "
        "train and those to test",
    )
    seeds: Annotated[tuple[int, ...], ONCE] = Field(
        (0,), min_length=1, description="of the halves and of the searches, one run each"
    )
    soft_labels: Annotated[str, name_of({}, "soft labels")] | None = Field(
        None,
        description="import path mypackage.module:probabilities, called with a split, train or test: how likely each "
        "class is for each of its images, (images, classes), by the shares of annotators or by a model; for gamma",
    )

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.soft_labels is None and any(gamma_of(method) is not None for method in self.methods.values()):
            raise FieldError("soft_labels", "be given where a search has gamma", None)
        return self


def gamma_of(method: MethodParams) -> float | None:
    """The least average label uncertainty that a search asks of a region; None: it does not ask."""
    return method.gamma if isinstance(method, Balls) else None
