"""The points of a line or of a rectangle in a plane, in units of the directions; the model is at zero."""

from typing import Self

import numpy as np
from pydantic import Field, model_validator

from jobs.common.params import StudyParams
from service.errors import FieldError

MOST_POINTS = 1_000_000


class AxisParams(StudyParams):
    """Equally spaced coordinates along a direction."""

    low: float = Field(-1.0, ge=-1e6, le=1e6, description="the first coordinate, in units of the direction")
    high: float = Field(1.0, ge=-1e6, le=1e6, description="the last coordinate, above the first")
    steps: int = Field(25, ge=2, le=100_000, description="points from the first to the last")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low >= self.high:
            raise FieldError("low", f"be below high, which is {self.high:g}", self.low)
        return self

    @property
    def coordinates(self) -> np.ndarray:
        """float64 (steps,), rounded so that the middle of a symmetric axis is zero."""
        return np.round(np.linspace(self.low, self.high, self.steps), 12) + 0.0


class GridParams(StudyParams):
    """A line along x, or a rectangle over x and y."""

    x: AxisParams = Field(AxisParams(), description="along the first direction")
    y: AxisParams | None = Field(None, description="along the second direction; none: a line along the first")

    @model_validator(mode="after")
    def _not_too_many(self) -> Self:
        if (points := self.shape[0] * self.shape[1]) > MOST_POINTS:
            raise FieldError("x.steps times y.steps", f"be at most {MOST_POINTS:,}", points)
        return self

    @property
    def axes(self) -> int:
        """How many directions it takes."""
        return 1 if self.y is None else 2

    @property
    def shape(self) -> tuple[int, int]:
        """(steps_y, steps_x); a line has one row."""
        return (1 if self.y is None else self.y.steps), self.x.steps

    def with_steps(self, steps: int) -> "GridParams":
        """The same bounds with as many points along each axis."""
        y = None if self.y is None else self.y.model_copy(update={"steps": steps})
        return GridParams(x=self.x.model_copy(update={"steps": steps}), y=y)

    def point(self, row: int, column: int) -> list[float]:
        """The coordinates of a point: one along x, and one along y if there is a second direction."""
        x = float(self.x.coordinates[column])
        return [x] if self.y is None else [x, float(self.y.coordinates[row])]
