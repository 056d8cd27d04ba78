"""What requests to a detector take besides tensors: which boxes count, and how a large image is cut."""

from pydantic import Field

from jobs.common.detection.tiling import MOST_TILES, Tiles
from service.errors import InputError
from service.params import Section

SMALLEST_TILE, LARGEST_TILE = 64, 65_536


class DetectionOptions(Section):
    """Those without a default have one by the card of the detector."""

    confidence: float = Field(gt=0, lt=1, description="the least score of a box")
    overlap: float = Field(
        0.45, gt=0, le=1, description="intersection over union above which the less sure of two boxes of a class drops"
    )
    most: int = Field(100, ge=1, le=300, description="boxes of an image, the surest")
    tile: int = Field(ge=SMALLEST_TILE, le=LARGEST_TILE, description="side of a tile in pixels")

    @property
    def tiles(self) -> Tiles:
        return Tiles(side=self.tile)

    def parts(self, height: int, width: int) -> int:
        """In how many parts an image of a size is seen. InputError if these are too many."""
        parts = self.tiles.count(height, width)
        if parts > MOST_TILES:
            raise InputError(
                f"an image must be seen in at most {MOST_TILES:,} parts; {width}x{height} pixels in tiles of "
                f"{self.tile} are {parts:,}",
                "ask for larger tiles",
            )
        return parts
