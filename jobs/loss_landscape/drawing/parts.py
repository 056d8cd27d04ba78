"""Parts of the figures: panels, contours, what is not known, and triangles of a surface."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke

from jobs.common.figures.plots import panels
from jobs.loss_landscape.drawing.content import Landscape
from jobs.loss_landscape.drawing.scale import Scale

DRAWN = 120  # points along each axis of a 3-D surface at most: more cannot be seen
ROW = 3  # panels beside each other at most
COLOURS = "viridis"
NOT_FINITE, CENSORED = "#4a4a4a", "#c4c4c4"


def landscape_panels(count: int, width: float, height: float, **options: Any) -> tuple[Figure, list[Axes]]:
    """A figure with so many axes, at most ROW beside each other, and no row much shorter than the first."""
    rows = -(-count // ROW)
    figure, axes = panels(rows, -(-count // rows), width, height, **options)
    for unused in axes[count:]:
        unused.set_axis_off()
    return figure, axes[:count]


def draw_contours(axes: Axes, landscape: Landscape, scale: Scale, filled: bool) -> None:
    """Contours of the height: between the points of a logarithmic scale they run straight in the logarithm."""
    x, y, height = landscape.x, landscape.y, np.ma.masked_invalid(scale.height(landscape.known))
    low, high = scale.height(np.array([scale.low, scale.high]))
    texts = {float(scale.height(np.array(level))): f"{level:g}" for level in scale.levels}
    colours: dict[str, Any] = {"vmin": low, "vmax": high, "cmap": COLOURS}
    if filled:
        axes.pcolormesh(x, y, height, **colours)  # shows where contours stop at what is not known
        if texts:
            axes.contourf(x, y, height, [low, *texts, high], **colours)
    present = {place: text for place, text in texts.items() if height.min() < place < height.max()}
    if present and filled:
        axes.contour(x, y, height, list(present), colors="white", linewidths=0.3)
    elif present:
        lines = axes.contour(x, y, height, list(present), linewidths=1.1, **colours)
        for text in axes.clabel(lines, fmt=present, fontsize=7, colors="#222222"):
            text.set_path_effects([withStroke(linewidth=2, foreground="white")])
    elif height.count():
        note = f"about {np.nanmean(landscape.known):.3g} everywhere"
        axes.text(0.5, 0.6, note, transform=axes.transAxes, ha="center")
    axes.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))


def finish(axes: Axes, landscape: Landscape, centre: bool = True) -> None:
    """Title, names, where nothing is known, and a cross at the centre."""
    for where, colour in ((~np.isfinite(landscape.loss), NOT_FINITE), (landscape.bounded, CENSORED)):
        if where.any():
            shown = np.ma.masked_where(~where, np.ones(where.shape))
            axes.pcolormesh(landscape.x, landscape.y, shown, cmap=ListedColormap([colour]))
    if centre:
        axes.plot(0, 0, "+", color="white", ms=9, mew=2.5, scalex=False, scaley=False)
        axes.plot(0, 0, "+", color="black", ms=8, mew=1, scalex=False, scaley=False)
    axes.grid(visible=False)
    axes.set(title=landscape.title, xlabel=landscape.names[0], ylabel=landscape.names[1])
    axes.set_box_aspect(1)


def colour_bar(figure: Figure, axes: Sequence[Axes], scale: Scale) -> None:
    figure.colorbar(ScalarMappable(scale.norm, COLOURS), ax=axes, label="loss", shrink=0.85)


def explain_unknown(figure: Figure, landscapes: Sequence[Landscape]) -> None:
    """A legend of what is not known, if there is such."""
    shown = []
    if any((~np.isfinite(each.loss)).any() for each in landscapes):
        shown.append(Patch(color=NOT_FINITE, label="not finite"))
    if any(each.bounded.any() for each in landscapes):
        least = min(float(each.loss[each.bounded].min()) for each in landscapes if each.bounded.any())
        shown.append(Patch(color=CENSORED, label=f"not computed to the end: above {least:.3g}"))
    if shown:
        figure.legend(handles=shown, loc="outside lower center", ncols=2)


def triangles_of(landscape: Landscape) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A grid, thinned to what can be seen: x, y and loss, each (points,), and the corners of triangles.

    corners: int64 (triangles, 3), two for each cell of the grid that has four finite corners.
    """
    rows, columns = (slice(None, None, -(-steps // DRAWN)) for steps in landscape.loss.shape)
    across, along = np.meshgrid(landscape.x[columns], landscape.y[rows])
    loss = landscape.loss[rows, columns]
    finite = np.isfinite(loss)
    numbers = np.arange(loss.size).reshape(loss.shape)
    corners = np.stack([numbers[:-1, :-1], numbers[:-1, 1:], numbers[1:, 1:], numbers[1:, :-1]], -1).reshape(-1, 4)
    corners = corners[finite.ravel()[corners].all(1)]
    triangles = np.concatenate([corners[:, [0, 1, 2]], corners[:, [0, 2, 3]]])
    anywhere = loss[finite].min() if finite.any() else 0.0  # for points of no triangle
    return across.ravel(), along.ravel(), np.where(finite, loss, anywhere).ravel(), triangles
