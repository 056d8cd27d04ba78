"""What a spec says of paper, printer and camera."""

from pathlib import Path

from pydantic import Field

from jobs.common.params import StudyParams
from jobs.invisibility_cloak.physical.colour_map import read
from jobs.invisibility_cloak.physical.layout import SheetParams
from jobs.invisibility_cloak.physical.rephotograph import CameraParams, Reproduction


class PhysicalParams(StudyParams):
    """What lies between a patch and a photograph of somebody who wears it, in the search and in all tests."""

    sheet: SheetParams | None = Field(SheetParams(), description="to print patches on, as PDF; none: no PDF")
    colours: str | None = Field(
        None,
        description="path of a colour map of printer and camera, of `python -m jobs.invisibility_cloak.physical "
        "colours`; none: colours stay as they are",
    )
    camera: CameraParams | None = Field(None, description="blur, noise and JPEG of every image; none: none of them")


def reproduction_of(params: PhysicalParams | None) -> Reproduction:
    """What a spec says, ready for use. InputError if a file holds no colour map."""
    if params is None:
        return Reproduction()
    colours = None if params.colours is None else read(Path(params.colours).expanduser())
    return Reproduction(colours, params.camera)
