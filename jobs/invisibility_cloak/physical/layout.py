"""Where things are on a printed sheet, in millimetres from its upper left corner: corner marks, swatches, the patch.

A sheet is upright. At its corners are square marks, along its edges swatches of known colours, inside them the patch in
real size. A patch that is larger than the room inside is spread over several sheets that overlap, each with marks and
swatches of its own.
"""

import itertools
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field

from jobs.common.params import StudyParams
from service.errors import FieldError

PaperName = Literal["a4", "a3"]
PAPERS: dict[str, tuple[float, float]] = {"a4": (210.0, 297.0), "a3": (297.0, 420.0)}
"""width and height"""
MARGIN = 6.0
"""that printers cannot print on"""
MARK, GAP, SWATCH, CAPTION = 12.0, 3.0, 10.0, 6.0
"""side of a corner mark, room beside it, side of a swatch, height of the line below the patch"""
BAND = MARGIN + MARK + GAP
"""from the edge of the sheet to where the patch may be"""
MARK_UNITS = (7, 5, 3)
"""sides of the black square of a mark, of the white one inside it and of the black one inside that: of the finder of QR
codes (ISO/IEC 18004)"""
ACROSS, DOWN = 14, 22
"""swatches along an edge of the sheet"""
MOST_SHEETS = 64
TOLERANCE = 1e-6


class SheetParams(StudyParams):
    """On what a patch is printed, and how large."""

    paper: PaperName = Field("a4", description="of the sheets, which stand upright")
    width: float = Field(160.0, ge=10, le=3000, description="of the patch, in millimetres; the height is in proportion")
    overlap: float = Field(10.0, ge=0, le=50, description="of neighbouring sheets of a large patch, in millimetres")


@dataclass(frozen=True)
class Tile:
    """The part of the patch on one sheet, in millimetres from the upper left corner of the patch."""

    row: int
    column: int
    left: float
    top: float
    width: float
    height: float


def tiles(params: SheetParams, height: float) -> list[Tile]:
    """The parts of a patch, row by row: of equal size, as few as there is room for.

    height: of the patch, in millimetres. FieldError if there would be too many.
    """
    room = inside(params.paper)
    rows, columns = (
        _parts(length, available, params.overlap) for length, available in ((height, room[1]), (params.width, room[0]))
    )
    if rows * columns > MOST_SHEETS:
        requirement = (
            f"be so small that {MOST_SHEETS} sheets of {params.paper.upper()} are enough, not {rows * columns}"
        )
        raise FieldError("width", requirement, params.width)
    wide = (params.width + (columns - 1) * params.overlap) / columns
    high = (height + (rows - 1) * params.overlap) / rows
    return [
        Tile(row, column, column * (wide - params.overlap), row * (high - params.overlap), wide, high)
        for row, column in itertools.product(range(rows), range(columns))
    ]


def _parts(length: float, room: float, overlap: float) -> int:
    return 1 if length <= room + TOLERANCE else math.ceil((length - overlap) / (room - overlap) - TOLERANCE)


def inside(paper: PaperName) -> tuple[float, float]:
    """Width and height of the room for the patch."""
    width, height = PAPERS[paper]
    return width - 2 * BAND, height - 2 * BAND - CAPTION


def marks(paper: PaperName) -> np.ndarray:
    """Centres of the corner marks, clockwise from the upper left one: float64 (4, 2), x and y."""
    width, height = PAPERS[paper]
    near = MARGIN + MARK / 2
    return np.array([[near, near], [width - near, near], [width - near, height - near], [near, height - near]])


def swatches(paper: PaperName) -> np.ndarray:
    """Centres of the swatches, clockwise from the upper left corner: float64 (72, 2), x and y."""
    width, height = PAPERS[paper]
    near = MARGIN + MARK / 2
    across = BAND + (np.arange(ACROSS) + 0.5) * (width - 2 * BAND) / ACROSS
    down = BAND + (np.arange(DOWN) + 0.5) * (height - 2 * BAND) / DOWN
    top = np.stack([across, np.full(ACROSS, near)], 1)
    right = np.stack([np.full(DOWN, width - near), down], 1)
    bottom = np.stack([across[::-1], np.full(ACROSS, height - near)], 1)
    left = np.stack([np.full(DOWN, near), down[::-1]], 1)
    return np.concatenate([top, right, bottom, left])


def colours() -> np.ndarray:
    """Colours of the swatches, in their order: float64 (72, 3) in [0, 1], red green blue.

    Four levels of each primary, and greys between them, in an order that is no other one when the sheet is turned.
    """
    levels = np.linspace(0, 1, 4)
    grid = np.array(list(itertools.product(levels, repeat=3)))
    between = np.array([1, 2, 4, 5, 7, 8]) / 9
    greys = np.stack([np.array([*between, 0.5, 0.85])] * 3, 1)
    every = np.concatenate([grid, greys])
    return every[np.random.default_rng(0).permutation(len(every))]
