"""What a spec says of curves."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from jobs.common.params import ONCE, StudyParams
from service.errors import FieldError

RANGES = {"scale": (0.01, 2.0), "angle": (-180.0, 180.0), "brightness": (-1.0, 1.0), "occlusion": (0.0, 0.95)}
MOST = 50


class CurveParams(StudyParams):
    """How patches are drawn, one thing changed at a time, the rest as `rendering` says and upright."""

    scale: Annotated[tuple[float, ...], ONCE] = Field(
        (0.1, 0.15, 0.22, 0.3, 0.4), max_length=MOST, description="widths of the patch, in diagonals of the box"
    )
    angle: Annotated[tuple[float, ...], ONCE] = Field(
        (0.0, 15.0, 30.0, 60.0, 90.0, 180.0), max_length=MOST, description="degrees by which it is turned, clockwise"
    )
    brightness: Annotated[tuple[float, ...], ONCE] = Field(
        (-0.4, -0.2, 0.0, 0.2, 0.4), max_length=MOST, description="what is added to its colours, of a range of 1"
    )
    occlusion: Annotated[tuple[float, ...], ONCE] = Field(
        (0.0, 0.1, 0.2, 0.3, 0.5), max_length=MOST, description="shares of it behind a grey thing at a random place"
    )
    images: int | None = Field(None, ge=1, description="test images, the first ones; none: all")

    @model_validator(mode="after")
    def _in_range(self) -> Self:
        for axis, (low, high) in RANGES.items():
            for value in getattr(self, axis):
                if not low <= value <= high:
                    raise FieldError(axis, f"be from {low:g} to {high:g}", value)
        return self

    @property
    def points(self) -> list[tuple[str, float]]:
        """Axes and values, in the order of the axes."""
        return [(axis, value) for axis in RANGES for value in sorted(getattr(self, axis))]
