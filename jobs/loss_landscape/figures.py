"""The pictures of the study: curves, contours, maps and surfaces of the loss, paths across them, and their curvature.

Several landscapes in one figure have one scale, so that they can be compared. It is logarithmic where the loss varies
by more than a factor of WIDE. What is not known is shown as such, never filled in.

Source of the kinds: Li et al. 2018, figures 1 to 9, and the released code.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from mpl_toolkits.mplot3d import Axes3D

from jobs.common.figures.plots import PALETTE, house_style, panels
from jobs.loss_landscape.drawing.content import CurvatureMap, Curve, Landscape, Path
from jobs.loss_landscape.drawing.parts import (
    COLOURS,
    colour_bar,
    draw_contours,
    explain_unknown,
    finish,
    landscape_panels,
    triangles_of,
)
from jobs.loss_landscape.drawing.scale import is_wide, shared_scale


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
            style_of_line: dict[str, Any] = {
                "color": colour,
                "ls": style,
                "lw": 0.8 if repeated else 1.6,
                "alpha": 0.7 if repeated else 1.0,
            }
            finite = np.isfinite(line.loss)
            axes[0].plot(line.x, np.where(finite, line.loss, np.nan), **style_of_line)
            if line.error is not None:
                low, high = line.loss - 2 * line.error, line.loss + 2 * line.error
                axes[0].fill_between(line.x, low, high, where=finite, color=colour, alpha=0.2, lw=0)
            lost = line.x[~finite]
            axes[0].plot(lost, np.full(len(lost), 0.97), "x", color=colour, transform=axes[0].get_xaxis_transform())
            if line.accuracy is not None:
                axes[1].plot(line.x, 100 * line.accuracy, **style_of_line)
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
    scale = shared_scale(landscapes)
    with house_style():
        figure, axes = landscape_panels(len(landscapes), 4.2, 3.8)
        for each, landscape in zip(axes, landscapes, strict=True):
            draw_contours(each, landscape, scale, filled)
            finish(each, landscape)
        if filled:
            colour_bar(figure, axes, scale)
        explain_unknown(figure, landscapes)
    return figure


def heat_maps(landscapes: Sequence[Landscape]) -> Figure:
    """Every point in the colour of its loss. Dots: what was computed, if the rest is interpolated."""
    scale = shared_scale(landscapes)
    with house_style():
        figure, axes = landscape_panels(len(landscapes), 4.2, 3.8)
        for each, landscape in zip(axes, landscapes, strict=True):
            loss = landscape.known.clip(scale.low, scale.high)
            each.pcolormesh(landscape.x, landscape.y, loss, norm=scale.norm, cmap=COLOURS)
            finish(each, landscape)
            if landscape.measured is not None and not landscape.measured.all():
                rows, columns = np.nonzero(landscape.measured)
                each.plot(landscape.x[columns], landscape.y[rows], ".", color="white", ms=1.5, alpha=0.8)
        colour_bar(figure, axes, scale)
        explain_unknown(figure, landscapes)
    return figure


def surfaces(landscapes: Sequence[Landscape]) -> Figure:
    """Each landscape in three dimensions; what is not finite is a hole, what is censored is drawn at its bound."""
    scale = shared_scale(landscapes, bounds=True)
    low, high = scale.height(np.array([scale.low, scale.high]))
    with house_style():
        figure, axes = landscape_panels(len(landscapes), 4.6, 4.2, subplot_kw={"projection": "3d"})
        for each, landscape in zip(axes, landscapes, strict=True):
            assert isinstance(each, Axes3D)
            x, y, loss, triangles = triangles_of(landscape)
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
    scale = shared_scale([landscape])
    with house_style():
        figure, (plane, losses) = panels(1, 2, 4.8, 4.2)
        draw_contours(plane, landscape, scale, filled=False)
        across, along = path.coordinates.T
        plane.plot(across, along, "-o", color=PALETTE[1], lw=1.4, ms=3)
        plane.plot(across[0], along[0], "s", color=PALETTE[1], ms=7, label=f"{path.unit} {path.steps[0]:g}")
        plane.plot(across[-1], along[-1], "*", color=PALETTE[1], ms=12, label=f"{path.unit} {path.steps[-1]:g}")
        finish(plane, landscape, centre=False)
        if path.explained is not None:
            shares = [f" ({100 * share:.1f} % of the path's variance)" for share in path.explained]
            plane.set(xlabel=landscape.names[0] + shares[0], ylabel=landscape.names[1] + shares[1])
        plane.legend(frameon=True, framealpha=0.85, edgecolor="white")
        losses.plot(path.steps, path.loss, "-o", ms=3, label="of the checkpoint")
        losses.plot(path.steps, path.projected, "--o", ms=3, mfc="none", label="where it is drawn, in the plane")
        if is_wide(np.concatenate([path.loss, path.projected])):
            losses.set_yscale("log")
        losses.set(title="loss along the path", xlabel=path.unit, ylabel="loss")
        losses.legend()
        explain_unknown(figure, [landscape])
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
    for row, shown, norm, colours, label, beyond in rows:
        for each, plane in zip(row, planes, strict=True):
            each.pcolormesh(plane.x, plane.y, shown(plane.known), norm=norm, cmap=colours)
            finish(each, plane)
        figure.colorbar(ScalarMappable(norm, colours), ax=row, label=label, extend=beyond, shrink=0.8)
    explain_unknown(figure, planes)
    return figure


def _ratio_curves(lines: Sequence[tuple[str, np.ndarray, np.ndarray]]) -> Figure:
    figure, (axes,) = panels(1, 1, 5.6, 3.0)
    for label, x, ratio in lines:
        axes.plot(x, ratio, label=label)
    axes.set(ylim=(0, 1), xlabel="step along the direction", ylabel="|smallest / largest eigenvalue|")
    axes.legend()
    return figure
