"""How concentration is measured, as a section of a spec."""

from typing import Literal

from pydantic import Field

from jobs.common.params import Name, StudyParams
from jobs.inevitability.concentration import HalfSpaces, MethodParams


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
    seeds: tuple[int, ...] = Field((0,), min_length=1, description="of the halves and of the searches, one run each")
