"""The pictures of the study: curves, contours, maps and surfaces of the loss, paths across them, and their curvature.

Several landscapes in one figure have one scale, so that they can be compared. It is logarithmic where the loss varies
by more than a factor of WIDE. What is not known is shown as such, never filled in.

Source of the kinds: Li et al. 2018, figures 1 to 9, and the released code.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, MaxNLocator
from mpl_toolkits.mplot3d import Axes3D

from jobs.common.figures.plots import PALETTE, house_style, panels

WIDE = 30  # highest loss over lowest, from which a scale is logarithmic
DEPTH = 1e-12  # of the highest loss: what is below it is at the bottom of a logarithmic scale
LEVELS = 15  # contours at most, or thereabouts
DRAWN = 120  # points along each axis of a 3-D surface at most: more cannot be seen
ROW = 3  # panels beside each other at most
COLOURS = "viridis"
NOT_FINITE, CENSORED = "#4a4a4a", "#c4c4c4"


@dataclass(frozen=True)
class Landscape:
    """The loss on a plane. x: (steps_x,), y: (steps_y,), ascending; loss: (steps_y, steps_x).

    censored: bool, of the shape of the loss: known only to be above what `loss` says there. names: of the two axes.
    measured: bool, of the same shape: elsewhere the loss is interpolated. None: everywhere.
    """

    title: str
    x: np.ndarray
    y: np.ndarray
    loss: np.ndarray
    censored: np.ndarray | None = None
    names: tuple[str, str] = ("x", "y")
    measured: np.ndarray | None = None

    @property
    def bounded(self) -> np.ndarray:
        """Where a bound is known and no more: bool (steps_y, steps_x)."""
        return np.zeros(self.loss.shape, bool) if self.censored is None else self.censored & np.isfinite(self.loss)

    @property
    def known(self) -> np.ndarray:
        """The loss where it is finite and known, else NaN."""
        return np.where(np.isfinite(self.loss) & ~self.bounded, self.loss, np.nan)


@dataclass(frozen=True)
class Curve:
    """The loss along a line. x, loss: (steps,); accuracy: shares in [0, 1]; error: standard errors of the loss."""

    label: str
    x: np.ndarray
    loss: np.ndarray
    accuracy: np.ndarray | None = None
    error: np.ndarray | None = None
    held_out: bool = False


@dataclass(frozen=True)
class Path:
    """Checkpoints on a plane. coordinates: (checkpoints, 2); steps: (checkpoints,), when they were made, in `unit`s.

    loss: of the checkpoints themselves; projected: of the points of the plane at which they are drawn; the two differ
    by what the plane leaves out. explained: shares in [0, 1] of the path's variance along the two axes.
    """

    coordinates: np.ndarray
    steps: np.ndarray
    loss: np.ndarray
    projected: np.ndarray
    explained: tuple[float, float] | None = None
    unit: str = "epoch"


@dataclass(frozen=True)
class CurvatureMap:
    """The extreme eigenvalues of the Hessian on a plane, (steps_y, steps_x), or on a line: (steps_x,), and no y."""

    title: str
    x: np.ndarray
    y: np.ndarray | None
    smallest: np.ndarray
    largest: np.ndarray

    @property
    def ratio(self) -> np.ndarray:
        """smallest / largest, with its sign."""
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio: np.ndarray = self.smallest / self.largest
        return ratio


def curves(lines: Sequence[Curve], along: str = "step along the direction") -> Figure:
    """The loss, and below it the accuracy, along lines. What was held out of training is dashed.

    Lines of one label have one colour, and are thin if there are several: repeats with other directions. The band is
    two standard errors to each side. Crosses at the top: the loss is not finite.
    """
    colours = dict(zip(dict.fromkeys(line.label for line in lines), PALETTE * len(lines), strict=False))
    repeated = len(lines) > len({(line.label, line.held_out) for line in lines})
    with_accuracy = any(line.accuracy is not None for line in lines)
    with house_style():
        figure, axes = panels(1 + with_accuracy, 1, 5.6, 2.6, sharex=True)
        for line in lines:
            colour, style = colours[line.label], "--" if line.held_out else "-"
            look: dict[str, Any] = {
                "color": colour,
                "ls": style,
                "lw": 0.8 if repeated else 1.6,
                "alpha": 0.7 if repeated else 1.0,
            }
            finite = np.isfinite(line.loss)
            axes[0].plot(line.x, np.where(finite, line.loss, np.nan), **look)
            if line.error is not None:
                low, high = line.loss - 2 * line.error, line.loss + 2 * line.error
                axes[0].fill_between(line.x, low, high, where=finite, color=colour, alpha=0.2, lw=0)
            lost = line.x[~finite]
            axes[0].plot(lost, np.full(len(lost), 0.97), "x", color=colour, transform=axes[0].get_xaxis_transform())
            if line.accuracy is not None:
                axes[1].plot(line.x, 100 * line.accuracy, **look)
        if is_wide(np.concatenate([line.loss for line in lines])):
            axes[0].set_yscale("log", nonpositive="clip")
        axes[0].set(ylabel="loss")
        if with_accuracy:
            axes[1].set(ylabel="accuracy (%)", ylim=(-3, 103))
        axes[-1].set(xlabel=along)
        for label, colour in colours.items():
            axes[0].plot([], [], color=colour, label=label)
        if any(line.held_out for line in lines):
            axes[0].plot([], [], color="black", ls="--", label="held out")
        figure.legend(loc="outside lower center", ncols=4)
    return figure


def contours(landscapes: Sequence[Landscape], filled: bool = False) -> Figure:
    """Contours of each landscape, the same for all, as lines with their values or filled."""
    scale = _scale(landscapes)
    with house_style():
        figure, axes = _panels(len(landscapes), 4.2, 3.8)
        for each, landscape in zip(axes, landscapes, strict=True):
            _draw_contours(each, landscape, scale, filled)
            _finish(each, landscape)
        if filled:
            _bar(figure, axes, scale)
        _explain(figure, landscapes)
    return figure


def heat_maps(landscapes: Sequence[Landscape]) -> Figure:
    """Every point in the colour of its loss. Dots: what was computed, if the rest is interpolated."""
    scale = _scale(landscapes)
    with house_style():
        figure, axes = _panels(len(landscapes), 4.2, 3.8)
        for each, landscape in zip(axes, landscapes, strict=True):
            loss = landscape.known.clip(scale.low, scale.high)
            each.pcolormesh(landscape.x, landscape.y, loss, norm=scale.norm, cmap=COLOURS)
            _finish(each, landscape)
            if landscape.measured is not None and not landscape.measured.all():
                rows, columns = np.nonzero(landscape.measured)
                each.plot(landscape.x[columns], landscape.y[rows], ".", color="white", ms=1.5, alpha=0.8)
        _bar(figure, axes, scale)
        _explain(figure, landscapes)
    return figure


def surfaces(landscapes: Sequence[Landscape]) -> Figure:
    """Each landscape in three dimensions; what is not finite is a hole, what is censored is drawn at its bound."""
    scale = _scale(landscapes, bounds=True)
    low, high = scale.height(np.array([scale.low, scale.high]))
    with house_style():
        figure, axes = _panels(len(landscapes), 4.6, 4.2, subplot_kw={"projection": "3d"})
        for each, landscape in zip(axes, landscapes, strict=True):
            assert isinstance(each, Axes3D)
            x, y, loss, triangles = _triangles(landscape)
            if len(triangles):
                colours: dict[str, Any] = {"vmin": low, "vmax": high, "cmap": COLOURS}
                each.plot_trisurf(
                    x, y, scale.height(loss), triangles=triangles, linewidth=0, antialiased=False, **colours
                )
            each.set(title=landscape.title, xlabel=landscape.names[0], ylabel=landscape.names[1], zlabel="loss")
            each.set(zlim=(low, high))
            each.view_init(elev=32, azim=-60)
            each.tick_params(labelsize=7)
            for axis in (each.xaxis, each.yaxis, each.zaxis):
                axis.set_major_locator(MaxNLocator(5, integer=scale.logarithmic and axis is each.zaxis))
            if scale.logarithmic:
                each.zaxis.set_major_formatter(FuncFormatter(lambda value, _: f"$10^{{{value:.0f}}}$"))
    return figure


def trajectory(landscape: Landscape, path: Path) -> Figure:
    """The path of training over contours of the loss, and the loss of the checkpoints and of where they are drawn."""
    scale = _scale([landscape])
    with house_style():
        figure, (plane, told) = panels(1, 2, 4.8, 4.2)
        _draw_contours(plane, landscape, scale, filled=False)
        across, along = path.coordinates.T
        plane.plot(across, along, "-o", color=PALETTE[1], lw=1.4, ms=3)
        plane.plot(across[0], along[0], "s", color=PALETTE[1], ms=7, label=f"{path.unit} {path.steps[0]:g}")
        plane.plot(across[-1], along[-1], "*", color=PALETTE[1], ms=12, label=f"{path.unit} {path.steps[-1]:g}")
        _finish(plane, landscape, centre=False)
        if path.explained is not None:
            shares = [f" ({100 * share:.1f} % of the path's variance)" for share in path.explained]
            plane.set(xlabel=landscape.names[0] + shares[0], ylabel=landscape.names[1] + shares[1])
        plane.legend(frameon=True, framealpha=0.85, edgecolor="white")
        told.plot(path.steps, path.loss, "-o", ms=3, label="of the checkpoint")
        told.plot(path.steps, path.projected, "--o", ms=3, mfc="none", label="where it is drawn, in the plane")
        if is_wide(np.concatenate([path.loss, path.projected])):
            told.set_yscale("log")
        told.set(title="loss along the path", xlabel=path.unit, ylabel="loss")
        told.legend()
        _explain(figure, [landscape])
    return figure


def eigenvalue_ratios(maps: Sequence[CurvatureMap]) -> Figure:
    """|smallest / largest eigenvalue| of the Hessian: near 0 the loss is nearly convex. Source: figure 7.

    On planes as maps, from 0 to 0.5 and below it the same with its sign; on lines as curves, from 0 to 1.
    """
    lines = [(each.title, each.x, np.abs(each.ratio)) for each in maps if each.y is None]
    planes = [Landscape(each.title, each.x, each.y, each.ratio) for each in maps if each.y is not None]
    with house_style():
        return _ratio_maps(planes) if planes else _ratio_curves(lines)


def _ratio_maps(planes: Sequence[Landscape]) -> Figure:
    """planes: the ratios with their signs, in place of a loss."""
    figure, axes = panels(2, len(planes), 4.0, 3.6)
    rows = (
        (axes[: len(planes)], np.abs, Normalize(0, 0.5), COLOURS, "|smallest / largest|", "max"),
        (axes[len(planes) :], np.asarray, Normalize(-0.5, 0.5), "PuOr", "smallest / largest", "both"),
    )
    for row, seen, norm, colours, label, beyond in rows:
        for each, plane in zip(row, planes, strict=True):
            each.pcolormesh(plane.x, plane.y, seen(plane.known), norm=norm, cmap=colours)
            _finish(each, plane)
        figure.colorbar(ScalarMappable(norm, colours), ax=row, label=label, extend=beyond, shrink=0.8)
    _explain(figure, planes)
    return figure


def _ratio_curves(lines: Sequence[tuple[str, np.ndarray, np.ndarray]]) -> Figure:
    figure, (axes,) = panels(1, 1, 5.6, 3.0)
    for label, x, ratio in lines:
        axes.plot(x, ratio, label=label)
    axes.set(ylim=(0, 1), xlabel="step along the direction", ylabel="|smallest / largest eigenvalue|")
    axes.legend()
    return figure


def is_wide(loss: np.ndarray) -> bool:
    """Whether the loss wants a logarithmic scale: nowhere negative, and varying by more than a factor of WIDE."""
    finite = loss[np.isfinite(loss)]
    positive = finite[finite > 0]
    return bool(len(positive) and finite.min() >= 0 and positive.max() > WIDE * positive.min())


def contour_levels(loss: np.ndarray) -> list[float]:
    """Round values between the lowest and the highest finite loss, never outside; [] if it is the same everywhere.

    On a logarithmic scale 1, 2 and 5 times powers of ten, or powers alone if these would be too many.
    """
    finite = loss[np.isfinite(loss)]
    if not len(finite) or finite.min() == finite.max():
        return []
    low, high = finite.min(), finite.max()
    if is_wide(loss):
        low = max(finite[finite > 0].min(), DEPTH * high)
        powers = np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
        if len(powers) > LEVELS / 3:
            candidates = 10.0 ** powers[powers % -(-len(powers) // LEVELS) == 0]
        else:
            candidates = np.outer(10.0**powers, [1, 2, 5]).ravel()
    else:
        candidates = MaxNLocator(LEVELS, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    levels = [float(level) for level in candidates if low < level < high]
    return levels or [float((low + high) / 2)]


@dataclass(frozen=True)
class _Scale:
    """The colours and contours that all landscapes of a figure share."""

    low: float
    high: float
    logarithmic: bool
    levels: list[float]

    @property
    def norm(self) -> Normalize:
        return (LogNorm if self.logarithmic else Normalize)(self.low, self.high)

    def height(self, loss: np.ndarray) -> np.ndarray:
        """The loss, or its decimal logarithm, with what is outside of the scale at its ends."""
        inside = loss.clip(self.low, self.high)
        return np.log10(inside) if self.logarithmic else inside


def _scale(landscapes: Sequence[Landscape], bounds: bool = False) -> _Scale:
    """bounds: whether those of censored points count."""
    seen = np.concatenate([(each.loss if bounds else each.known).ravel() for each in landscapes])
    finite = seen[np.isfinite(seen)]
    if not len(finite):
        return _Scale(0.0, 1.0, False, [])
    low, high = float(finite.min()), float(finite.max())
    if is_wide(seen):
        return _Scale(max(float(finite[finite > 0].min()), DEPTH * high), high, True, contour_levels(seen))
    return _Scale(low, high if high > low else low + 1, False, contour_levels(seen))


def _panels(count: int, width: float, height: float, **options: Any) -> tuple[Figure, list[Axes]]:
    """A figure with so many axes, at most ROW beside each other, and no row much shorter than the first."""
    rows = -(-count // ROW)
    figure, axes = panels(rows, -(-count // rows), width, height, **options)
    for unused in axes[count:]:
        unused.set_axis_off()
    return figure, axes[:count]


def _draw_contours(axes: Axes, landscape: Landscape, scale: _Scale, filled: bool) -> None:
    """Contours of the height: between the points of a logarithmic scale they run straight in the logarithm."""
    x, y, height = landscape.x, landscape.y, np.ma.masked_invalid(scale.height(landscape.known))
    low, high = scale.height(np.array([scale.low, scale.high]))
    texts = {float(scale.height(np.array(level))): f"{level:g}" for level in scale.levels}
    colours: dict[str, Any] = {"vmin": low, "vmax": high, "cmap": COLOURS}
    if filled:
        axes.pcolormesh(x, y, height, **colours)  # seen where what is not known keeps contours away
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
        told = f"about {np.nanmean(landscape.known):.3g} everywhere"
        axes.text(0.5, 0.6, told, transform=axes.transAxes, ha="center")
    axes.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))


def _finish(axes: Axes, landscape: Landscape, centre: bool = True) -> None:
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


def _bar(figure: Figure, axes: Sequence[Axes], scale: _Scale) -> None:
    figure.colorbar(ScalarMappable(scale.norm, COLOURS), ax=axes, label="loss", shrink=0.85)


def _explain(figure: Figure, landscapes: Sequence[Landscape]) -> None:
    """A legend of what is not known, if there is such."""
    shown = []
    if any((~np.isfinite(each.loss)).any() for each in landscapes):
        shown.append(Patch(color=NOT_FINITE, label="not finite"))
    if any(each.bounded.any() for each in landscapes):
        least = min(float(each.loss[each.bounded].min()) for each in landscapes if each.bounded.any())
        shown.append(Patch(color=CENSORED, label=f"not computed to the end: above {least:.3g}"))
    if shown:
        figure.legend(handles=shown, loc="outside lower center", ncols=2)


def _triangles(landscape: Landscape) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
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
