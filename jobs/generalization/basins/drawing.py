"""The pictures of basins: histograms of radii, radius and volume against the share of poison, chains.

Source of the kinds: Huang et al. 2020, figures 6 and 7.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from jobs.common.figures.plots import PALETTE, house_style, ordered_colours, panels
from jobs.generalization.basins.basin import Basin

BINS = 40
MOST_CHAINS = 20  # that are drawn


@dataclass(frozen=True)
class Point:
    """The basin of a network, trained with a share of poison. coefficient: value, low, high, if there is one."""

    share: float
    basin: Basin
    coefficient: tuple[float, float, float] | None


def histograms(basins: Sequence[tuple[str | None, Basin]]) -> Figure:
    """A panel for each convention and cut: how many rays have which radius. basins: with the names of their networks.

    Rays that do not reach the cut are in the last bin, at the cap.
    """
    groups = _grouped([basin for _, basin in basins])
    labels = list(dict.fromkeys(label for label, _ in basins))
    colours = dict(zip(labels, ordered_colours(len(labels)), strict=True))
    with house_style():
        figure, axes = panels(len(groups), 1, 5.8, 2.7)
        for each, ((convention, cut), some) in zip(axes, groups.items(), strict=True):
            low, high = min(basin.radius.min() for basin in some), max(basin.radius.max() for basin in some)
            edges = np.geomspace(low * 0.98, high * 1.02, BINS + 1).tolist()
            for label, basin in basins:
                if basin in some:
                    name = label if each is axes[0] else None
                    each.hist(basin.radius, edges, histtype="stepfilled", alpha=0.25, color=colours[label])
                    each.hist(basin.radius, edges, histtype="step", lw=1.2, color=colours[label], label=name)
            each.set(xscale="log", ylabel="rays", title=f"{convention}, cut {cut:g}")
            _plain_ticks(each.xaxis)
        axes[-1].set_xlabel("radius, in units of the filters' norms")
        if labels != [None]:
            figure.legend(loc="outside lower center", ncols=min(len(labels), 4))
    return figure


def against_share(points: Sequence[Point]) -> Figure:
    """Columns for each convention and cut: the radius, the volume, and last the learning coefficient if it is there.

    A dot is a network with its 95 % interval, a line goes through the means of a share. The band holds the middle 80 %
    of all rays of a share.
    """
    groups = _grouped([point.basin for point in points])
    with_coefficient = any(point.coefficient is not None for point in points)
    with house_style():
        figure, axes = panels(len(groups), 2 + with_coefficient, 4.0, 3.0)
        rows = [axes[row * (2 + with_coefficient) :] for row in range(len(groups))]
        for (radius, volume, *rest), ((convention, cut), some) in zip(rows, groups.items(), strict=False):
            own = [point for point in points if point.basin in some]
            _radii(radius, own)
            _intervals(volume, [(p.share, *_ends(p.basin)) for p in own])
            volume.set_ylabel("log10 volume")
            radius.set_title(f"{convention}, cut {cut:g}")
            if with_coefficient and radius is axes[0]:
                _intervals(rest[0], [(p.share, *p.coefficient) for p in own if p.coefficient is not None])
                rest[0].set_ylabel("learning coefficient")
            elif with_coefficient:
                rest[0].set_visible(False)
        for each in axes:
            each.set_xlabel("share of poison in the objective")
            _share_scale(each, [point.share for point in points])
    return figure


def traces(excess: np.ndarray) -> Figure:
    """The loss along each chain above that of the network, and the mean over chains. excess: (steps, chains)."""
    with house_style():
        figure, (axes,) = panels(1, 1, 5.6, 3.0)
        axes.plot(excess[:, :MOST_CHAINS], color=PALETTE[0], lw=0.4, alpha=0.5)
        axes.plot(np.nanmean(np.where(np.isfinite(excess).any(1, keepdims=True), excess, 0), axis=1), color="black")
        axes.set(xlabel="step", ylabel="loss above that of the network")
    return figure


def _radii(axes: Axes, points: Sequence[Point]) -> None:
    for share in sorted({point.share for point in points}):
        rays = np.concatenate([point.basin.radius for point in points if point.share == share])
        low, high = np.percentile(rays, (10, 90))
        axes.plot([share, share], [low, high], color=PALETTE[0], lw=7, alpha=0.2, solid_capstyle="butt")
    radii = [point.basin.mean_radius for point in points]
    _intervals(axes, [(p.share, r.value, r.low, r.high) for p, r in zip(points, radii, strict=True)])
    axes.set(yscale="log", ylabel="radius")
    _plain_ticks(axes.yaxis)


def _plain_ticks(axis: Axis) -> None:
    """Few ticks on a logarithmic axis, written as numbers."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _ends(basin: Basin) -> tuple[float, float, float]:
    volume = basin.log10_volume
    return volume.value, volume.low, volume.high


def _intervals(axes: Axes, rows: Sequence[tuple[float, float, float, float]]) -> None:
    """Dots with intervals, and a line through the means of equal shares. rows: share, value, low, high."""
    rows = [row for row in rows if np.isfinite(row).all()]
    levels = sorted({row[0] for row in rows})
    means = [np.mean([row[1] for row in rows if row[0] == level]) for level in levels]
    axes.plot(levels, means, color=PALETTE[0], lw=1)
    for share, value, low, high in rows:
        errors = [[max(value - low, 0)], [max(high - value, 0)]]
        axes.errorbar(share, value, errors, fmt="o", ms=4, color=PALETTE[0], capsize=2)


def _share_scale(axes: Axes, shares: Sequence[float]) -> None:
    positive = [share for share in shares if share > 0]
    if positive and max(positive) / min(positive) > 20:
        axes.set_xscale("symlog", linthresh=min(positive))


def _grouped(basins: Sequence[Basin]) -> dict[tuple[str, float], list[Basin]]:
    groups: dict[tuple[str, float], list[Basin]] = {}
    for basin in basins:
        groups.setdefault((basin.measure.convention, basin.measure.cut), []).append(basin)
    return groups
