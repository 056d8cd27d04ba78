"""A surface for ParaView: VTK PolyData in XML. Source of its form: h52vtp.py of the code of Li et al. 2018."""

from collections.abc import Iterator
from typing import Literal

import numpy as np
from pydantic import Field
from scipy.interpolate import RectBivariateSpline

from jobs.common.params import StudyParams
from service.errors import InputError

Height = Literal["loss", "log_loss"]

OFFSET = 0.1  # added to a loss whose logarithm is the height, as in the released code


class VtpParams(StudyParams):
    """What stands in the file for ParaView."""

    height: Height = Field("loss", description="of the points: the loss, or log_loss, ln(loss + 0.1)")
    highest: float | None = Field(None, description="losses above (infinite ones too) are cut down to it; none: no")
    steps: int | None = Field(
        None,
        ge=4,
        le=4096,
        description="points along each axis, by bicubic splines through those that there are; none: these alone",
    )


def vtk_polydata(
    surface: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    *,
    height: Height = "loss",
    highest: float | None = None,
    steps: int | None = None,
) -> str:
    """A surface for ParaView: a .vtp file, as text.

    One quadrilateral for each cell of the grid. The height of the points is an array of the name `height`, the mean of
    a cell's corners one of the name `averaged` before it. The rest is as `VtpParams` says: losses are cut, resampled,
    and then taken as they are or as logarithms. Points that are not finite are left out with the cells around them:
    holes in the surface. InputError if such a surface is to be resampled.
    """
    if surface.shape != (len(y), len(x)) or min(surface.shape) < 2:
        raise InputError(f"a surface of shape {surface.shape} does not fit a grid of {len(y)} by {len(x)} points")
    heights = np.asarray(surface, dtype=np.float64)
    heights = heights if highest is None else np.minimum(heights, highest)
    if steps is not None:
        heights, x, y = resample(heights, x, y, steps)
    if height == "log_loss":
        with np.errstate(invalid="ignore", divide="ignore"):
            heights = np.log(heights + OFFSET)
    finite = np.isfinite(heights)
    numbers = np.where(finite, finite.cumsum().reshape(finite.shape) - 1, -1)  # of the points that are kept
    corners = np.stack([numbers[:-1, :-1], numbers[:-1, 1:], numbers[1:, 1:], numbers[1:, :-1]], -1).reshape(-1, 4)
    corners = corners[(corners >= 0).all(1)]  # (cells, 4), anticlockwise
    across, along = np.meshgrid(x, y)
    points = np.stack([across, along, heights], -1)[finite]  # (points, 3), x fastest
    averages = points[corners, 2].mean(1)
    lines = [
        '<?xml version="1.0"?>',
        '<VTKFile type="PolyData" version="1.0" byte_order="LittleEndian" header_type="UInt64">',
        "<PolyData>",
        f'<Piece NumberOfPoints="{len(points)}" NumberOfVerts="0" NumberOfLines="0" NumberOfStrips="0" '
        f'NumberOfPolys="{len(corners)}">',
        f'<PointData Scalars="{height}">',
        *_array("Float64", points[:, 2], height),
        "</PointData>",
        f'<CellData Scalars="averaged {height}">',
        *_array("Float64", averages, f"averaged {height}"),
        "</CellData>",
        "<Points>",
        *_array("Float64", points, "Points", components=3),
        "</Points>",
        "<Polys>",
        *_array("Int64", corners, "connectivity"),
        *_array("Int64", 4 * np.arange(1, len(corners) + 1), "offsets"),
        "</Polys>",
        "</Piece>",
        "</PolyData>",
        "</VTKFile>",
    ]
    return "\n".join(lines) + "\n"


def resample(
    surface: np.ndarray, x: np.ndarray, y: np.ndarray, steps: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A surface on a finer, square grid, by bicubic splines: smooth to look at, and no more known than before.

    Returns the surface (steps, steps), x and y (steps,). InputError if it is not finite or has fewer than 4x4 points.
    """
    if min(surface.shape) < 4 or not np.isfinite(surface).all():
        raise InputError("splines need at least 4x4 points, all of them finite")
    fine_x, fine_y = np.linspace(x[0], x[-1], steps), np.linspace(y[0], y[-1], steps)
    return RectBivariateSpline(y, x, surface)(fine_y, fine_x), fine_x, fine_y


def _array(kind: str, values: np.ndarray, name: str, components: int = 1) -> Iterator[str]:
    """A DataArray, one row a line. Floats have as many digits as they need to be read back unchanged."""
    yield f'<DataArray type="{kind}" Name="{name}" NumberOfComponents="{components}" format="ascii">'
    for row in (values if values.ndim > 1 else values[:, None]).tolist():
        yield " ".join(map(repr, row))
    yield "</DataArray>"
