"""The picture of concentric spheres: how far errors are, and how far they could be."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jobs.common.figures.plots import house_style, ordered_colours, panels
from jobs.inevitability.bounds.adversarial_spheres import mean_distance_ceiling

MARKERS = {"inner": "o", "outer": "s"}
SHARES = 60
"""at which a ceiling is drawn"""

Rows = Sequence[Mapping[str, Any]]


def spheres(rows: Rows, curves: Rows) -> Figure:
    """Mean distances against shares of errors, below their ceilings; shares of points without an error near them.

    rows: as of `Robustness.row`. curves: as of `Robustness.curve_rows`.
    """
    dimensions = sorted({row["dimension"] for row in rows})
    colours = dict(zip(dimensions, ordered_colours(len(dimensions)), strict=True))
    with house_style():
        figure, (left, right) = panels(1, 2, width=5.2, height=3.8)
        _distances(left, rows, colours)
        _curves(right, rows, curves, colours)
    return figure


def _distances(axes: Axes, rows: Rows, colours: Mapping[int, str]) -> None:
    least = min(row["low"] or row["high"] for row in rows)
    shares = np.geomspace(max(least / 3, 1e-9), 0.5, SHARES)
    for n, colour in colours.items():
        ceilings = [mean_distance_ceiling(float(share), n) for share in shares]
        axes.plot(shares, ceilings, color=colour, label=f"{n} dimensions")
    for row in rows:
        if math.isnan(row["mean_distance"]):
            continue
        ends = [[row["error"] - row["low"]], [row["high"] - row["error"]]] if row["errors"] else None
        axes.errorbar(
            row["error"] or row["high"],
            row["mean_distance"] / row["radius"],
            xerr=ends,
            yerr=row["standard_error"] / row["radius"],
            color=colours[row["dimension"]],
            marker=MARKERS[row["sphere"]] if row["errors"] else "<",
            markersize=5,
            linestyle="none",
        )
    for sphere, marker in MARKERS.items():
        axes.plot(
            [], [], color="black", marker=marker, linestyle="none", markersize=5, label=f"networks, {sphere} sphere"
        )
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("share of the sphere that is misclassified")
    axes.set_ylabel("mean distance to an error / radius")
    axes.set_title("Lines: the farthest that errors can be")
    axes.legend()


def _curves(axes: Axes, rows: Rows, curves: Rows, colours: Mapping[int, str]) -> None:
    """Of every network, and the highest of their ceilings in each dimension."""
    key = ("dimension", "seed", "sphere")
    last = 0.0
    for n, colour in colours.items():
        own = [[each for each in curves if all(each[name] == row[name] for name in key)] for row in rows]
        own = [curve for curve in own if curve and curve[0]["dimension"] == n]
        for curve in own:
            angles, robust = [each["angle"] for each in curve], [each["robust"] for each in curve]
            axes.plot(angles, robust, color=colour, alpha=0.8)
            moving = [angle for angle, value in zip(angles, robust, strict=True) if value > robust[-1]]
            last = max([last, *moving])
        ceiling = np.max([[each["ceiling"] for each in curve] for curve in own], axis=0)
        if ceiling[-1] < 1:  # without errors there is none
            axes.plot(angles, ceiling, color=colour, linestyle="--")
    axes.plot([], [], color="black", label="networks")
    axes.plot([], [], color="black", linestyle="--", label="the theorem, for as few errors")
    axes.set_xlim(0, 1.3 * last or math.pi / 2)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("angle, radians")
    axes.set_ylabel("share of points without an error within it")
    axes.set_title("Robustness, and what no classifier exceeds")
    axes.legend(loc="upper right")
