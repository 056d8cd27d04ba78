"""What a spec says of the benchmark of judges."""

from typing import Annotated, Literal

from pydantic import Field

from jobs.common.params import ONCE, StudyParams

Axis = Literal["duration", "noise", "speed", "pitch", "songs"]
Decibels = Annotated[float, Field(ge=-60, le=100)]
Percent = Annotated[float, Field(gt=-50, le=100)]
Semitones = Annotated[float, Field(ge=-12, le=12)]
Seconds = Annotated[float, Field(gt=0, le=600)]
Count = Annotated[int, Field(ge=1, le=100_000)]


class IdentificationParams(StudyParams):
    """How judges identify excerpts that nobody attacks, along one axis at a time; an empty axis is left out."""

    seconds: float = Field(10.0, gt=0, le=600, description="length of an excerpt, but where its duration is the axis")
    excerpts: int = Field(2, ge=1, le=1000, description="of each song, from places drawn at random")
    duration: Annotated[tuple[Seconds, ...], ONCE] = Field((1.0, 2.0, 5.0, 10.0), description="seconds of an excerpt")
    noise: Annotated[tuple[Decibels, ...], ONCE] = Field(
        (-10.0, -5.0, 0.0, 5.0, 10.0, 20.0), description="decibels over white noise"
    )
    speed: Annotated[tuple[Percent, ...], ONCE] = Field(
        (-4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0), description="percent that it is faster, pitch with it"
    )
    pitch: Annotated[tuple[Semitones, ...], ONCE] = Field(
        (-1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0), description="semitones that it is higher in the same time"
    )
    songs: Annotated[tuple[Count, ...], ONCE] = Field(
        (), description="how many songs are enrolled; excerpts are then of those in the smallest number"
    )

    def levels(self, axis: Axis) -> tuple[float, ...]:
        """Of an axis, from the least to the most."""
        return tuple(sorted(map(float, getattr(self, axis))))
