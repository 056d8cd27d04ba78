"""The sheets to print a patch on, in real size, as a PDF."""

import io
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from jobs.invisibility_cloak.physical import layout
from jobs.invisibility_cloak.physical.layout import SheetParams, Tile
from service.errors import InputError

INCH = 25.4  # millimetres
CROP = 2.0  # millimetres, of the lines that say where to cut
RULER = 50.0  # millimetres, to see whether the printer has kept the size
NOMINAL: Any = {
    "pdf.compression": 6,
    "image.composite_image": False,  # pixels go into the file as they are
    "pdf.fonttype": 42,
}


def print_sheets(patch: np.ndarray, params: SheetParams, name: str) -> bytes:
    """A PDF of one page a sheet.

    patch: uint8 (height, width, 3), red green blue. name: of the patch, for the caption.
    FieldError if it takes too many sheets; InputError if the patch is no such image.
    """
    if patch.ndim != 3 or patch.shape[2] != 3 or patch.dtype != np.uint8 or not patch.size:
        raise InputError(f"the patch must be uint8 (height, width, 3); it is {patch.dtype} {patch.shape}")
    height = params.width * patch.shape[0] / patch.shape[1]
    every = layout.tiles(params, height)
    content = io.BytesIO()
    with matplotlib.rc_context(NOMINAL), PdfPages(content, metadata={"CreationDate": None, "Title": name}) as pages:
        for number, tile in enumerate(every):
            part = f", sheet {number + 1} of {len(every)}: row {tile.row + 1}, column {tile.column + 1}"
            text = f"{name}{part if len(every) > 1 else ''}, {params.width:.1f} x {height:.1f} mm. Print at 100 %."
            pages.savefig(_page(patch, params, height, tile, text))
    return content.getvalue()


def pixels_of(patch: Tensor) -> np.ndarray:
    """A patch (3, height, width) in [0, 1] as what is printed: uint8 (height, width, 3)."""
    pixels: np.ndarray = (patch.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    return pixels


def _page(patch: np.ndarray, params: SheetParams, height: float, tile: Tile, text: str) -> Figure:
    width_mm, height_mm = layout.PAPERS[params.paper]
    figure = Figure(figsize=(width_mm / INCH, height_mm / INCH))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(0, width_mm)
    axes.set_ylim(height_mm, 0)
    for x, y in layout.marks(params.paper):
        for units, colour in zip(layout.MARK_UNITS, ("black", "white", "black"), strict=True):
            _square(axes, x, y, layout.MARK * units / layout.MARK_UNITS[0], colour)
    for (x, y), colour in zip(layout.swatches(params.paper), layout.colours(), strict=True):
        _square(axes, x, y, layout.SWATCH, tuple(colour))
    _draw_tile(axes, patch, params, height, tile)
    _draw_caption(axes, params, text)
    return figure


def _square(axes: Axes, x: float, y: float, side: float, colour: Any) -> None:
    axes.add_patch(Rectangle((x - side / 2, y - side / 2), side, side, facecolor=colour, edgecolor="none", linewidth=0))


def _draw_tile(axes: Axes, patch: np.ndarray, params: SheetParams, height: float, tile: Tile) -> None:
    """A part of the patch in the middle of the room for it, and lines beside its corners to cut it out along."""
    room = layout.inside(params.paper)
    left, top = (layout.BAND + (length - own) / 2 for length, own in zip(room, (tile.width, tile.height), strict=True))
    x, y = left - tile.left, top - tile.top  # of the whole patch
    limits = axes.get_xlim(), axes.get_ylim()
    image = axes.imshow(
        patch, extent=(x, x + params.width, y + height, y), interpolation="none", aspect="auto", zorder=1
    )
    axes.set_xlim(limits[0])
    axes.set_ylim(limits[1])
    image.set_clip_path(Rectangle((left, top), tile.width, tile.height, transform=axes.transData))
    right, bottom = left + tile.width, top + tile.height
    for at, outwards in ((left, -1), (right, 1)):
        for level in (top, bottom):
            axes.plot([at + 0.5 * outwards, at + (0.5 + CROP) * outwards], [level, level], color="black", lw=0.3)
    for at, outwards in ((top, -1), (bottom, 1)):
        for level in (left, right):
            axes.plot([level, level], [at + 0.5 * outwards, at + (0.5 + CROP) * outwards], color="black", lw=0.3)


def _draw_caption(axes: Axes, params: SheetParams, text: str) -> None:
    width, height = layout.PAPERS[params.paper]
    level = height - layout.BAND - 1.5
    axes.text(layout.BAND, level, text, fontsize=6, va="baseline", ha="left")
    right = width - layout.BAND
    axes.plot([right - RULER, right], [level, level], color="black", lw=0.5, solid_capstyle="butt")
    for at in (right - RULER, right):
        axes.plot([at, at], [level - 1, level + 1], color="black", lw=0.5, solid_capstyle="butt")
    axes.text(right - RULER / 2, level - 0.7, f"{RULER:.0f} mm", fontsize=5, va="baseline", ha="center")
