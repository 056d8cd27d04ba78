"""The picture of the curves: what people are still found, against how the patch is drawn."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jobs.common.figures.plots import GREY, PALETTE, house_style, panels
from jobs.invisibility_cloak.robustness.params import RANGES

TITLES = {
    "scale": "width, in diagonals of the box",
    "angle": "angle, in degrees",
    "brightness": "added to its colours",
    "occlusion": "share of it covered",
}


def curves(rows: Sequence[Mapping[str, Any]], made_for: Mapping[str, float], confidence: float) -> Figure:
    """A line of panels for each victim, a panel for each axis; bands are 95 % intervals over images.

    made_for: the value of an axis that patches were made for, marked by a line.
    """
    victims = list(dict.fromkeys(row["victim"] for row in rows))
    axes_drawn = [axis for axis in RANGES if any(row["axis"] == axis for row in rows)]
    names = list(dict.fromkeys(row["patch"] for row in rows))
    patches = [name for name in names if any(row["patch"] == name and row["kind"] == "patch" for row in rows)]
    colours = {name: PALETTE[place % len(PALETTE)] for place, name in enumerate(patches)}
    with house_style():
        figure, every = panels(len(victims), len(axes_drawn), 2.6, 2.3, sharey=True)
        for place, axes in enumerate(every):
            victim, axis = victims[place // len(axes_drawn)], axes_drawn[place % len(axes_drawn)]
            if axis in made_for:
                axes.axvline(made_for[axis], color=GREY, lw=0.8, ls=":")
            for name in names:
                own = [row for row in rows if (row["victim"], row["axis"], row["patch"]) == (victim, axis, name)]
                _draw(axes, sorted(own, key=lambda row: row["value"]), name, colours.get(name, GREY))
            axes.set_ylim(-0.02, 1.02)
            axes.set_xlabel(TITLES[axis])
            if axis == axes_drawn[0]:
                axes.set_title(f"detector {victim}")
        figure.supylabel(f"share of people found at {confidence:g}", fontsize=9)
        found = {
            label: handle for axes in every for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.legend(list(found.values()), list(found), loc="outside lower center", ncols=4)
    return figure


def _draw(axes: Axes, rows: Sequence[Mapping[str, Any]], name: str, colour: str) -> None:
    if not rows:
        return
    values, recall, low, high = (
        np.array([row[column] for row in rows]) for column in ("value", "recall", "recall_low", "recall_high")
    )
    style = "o-" if rows[0]["kind"] == "patch" else "s--"
    axes.fill_between(values, low, high, color=colour, alpha=0.15, lw=0)
    axes.plot(values, recall, style, color=colour, label=name, ms=3, lw=1.3)
