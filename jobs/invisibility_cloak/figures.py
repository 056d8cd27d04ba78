"""The pictures of the study: whether a patch hides people, and more than grey; the matrix; patches; boxes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from jobs.common.figures.plots import GREY, PALETTE, house_style, panels
from jobs.invisibility_cloak.making import CONTROL, PATCH
from jobs.invisibility_cloak.params import CLEAN

Table = Sequence[Mapping[str, Any]]
TITLES = {
    CLEAN: "no patch",
    "grey": "grey",
    "best_colour": "the best colour",
    "random": "random pixels",
    "upside_down": "upside down",
    "look_alike": "look-alike",
}
"""of the rows that no spec names"""
COLUMNS = 3
NARROW = 6  # victims and sets up to which the maps of all measures are beside each other
DARK = 0.55  # of a share on a light map, from which its number is white
HIDDEN_COLOUR, OTHER_COLOUR, TRUTH_COLOUR = PALETTE[1], PALETTE[4], "#ffffff"


def title_of(name: str) -> str:
    """What a row is called in a picture."""
    return TITLES.get(name, name)


def hidden(table: Table, confidence: float) -> Figure:
    """Does a patch hide people, and more than a plain one does? A panel for each victim, on the first set of images.

    Shares of people that are still found, with 95 % intervals over images; patches that were made against the victim
    are filled.
    """
    first = [row for row in table if row["data"] == table[0]["data"]]
    victims = list(dict.fromkeys(row["victim"] for row in first))
    names = list(dict.fromkeys(row["patch"] for row in first))
    with house_style():
        columns = min(COLUMNS, len(victims))
        height = 0.7 + 0.26 * len(names)
        figure, axes = panels(math.ceil(len(victims) / columns), columns, 3.6, height, sharex=True, sharey=True)
        for axis in axes[len(victims) :]:
            axis.set_axis_off()
        for axis, victim in zip(axes, victims, strict=False):
            own = {row["patch"]: row for row in first if row["victim"] == victim}
            _draw_shares(axis, [own.get(name) for name in names], victim)
            axis.set_title(f"detector {victim}")
            axis.set_yticks(range(len(names)), [title_of(name) for name in names])
            axis.set_ylim(len(names) - 0.5, -0.5)
            axis.set_xlim(-0.02, 1.02)
        figure.supxlabel(
            f"share of people found at a confidence of {confidence:g} (filled: made against it)", fontsize=9
        )
    return figure


def _draw_shares(axes: Axes, rows: Sequence[Mapping[str, Any] | None], victim: str) -> None:
    grey = next((row for row in rows if row is not None and row["patch"] == "grey"), None)
    if grey is not None and grey["recall"] is not None:
        axes.axvline(grey["recall"], color=GREY, lw=0.8, ls="--")
    colours = {CLEAN: PALETTE[6], CONTROL: GREY, PATCH: PALETTE[1]}
    for place, row in enumerate(rows):
        if row is None or row["recall"] is None:
            continue
        colour = colours[row["kind"]]
        filled = row["kind"] != PATCH or victim in row["against"].split(", ")
        axes.plot([row["recall_low"], row["recall_high"]], [place, place], color=colour, lw=1.4)
        axes.plot([row["recall"]], [place], "o", color=colour, mfc=colour if filled else "white", ms=5)


def matrix(table: Table, confidence: float) -> Figure:
    """Heat maps with numbers: what is drawn, by victims and sets. White cells: made against this victim."""
    names = list(dict.fromkeys(row["patch"] for row in table))
    places = list(dict.fromkeys((row["data"], row["victim"]) for row in table))
    several = len({data for data, _ in places}) > 1
    cells = {(row["patch"], row["data"], row["victim"]): row for row in table}
    measures = (
        ("ap50", "AP50", 1.0),
        ("recall", f"recall at {confidence:g}", 1.0),
        ("success", "attack success", 1.0),
        ("displaced", "box that does not fit", 1.0),
        ("false_positives", "false positives an image", None),
    )
    with house_style():
        columns = len(measures) if len(places) <= NARROW else 1
        width, height = 1.1 + 0.62 * len(places), 1.4 + 0.3 * len(names)
        figure, axes = panels(math.ceil(len(measures) / columns), columns, width, height, sharey=True)
        for axis, (column, title, most) in zip(axes, measures, strict=True):
            values = np.array(
                [[_value(cells.get((name, *place)), column) for place in places] for name in names]
            )  # (rows, columns)
            highest = most or max(1e-9, float(np.nanmax(values, initial=0.0)))
            axis.imshow(values, cmap="Blues", vmin=0, vmax=highest, aspect="auto")
            for row, name in enumerate(names):
                for place, (data, victim) in enumerate(places):
                    cell = cells.get((name, data, victim))
                    _write(axis, place, row, values[row, place], highest)
                    if cell is not None and cell["kind"] == PATCH and victim in cell["against"].split(", "):
                        axis.add_patch(Rectangle((place - 0.47, row - 0.47), 0.94, 0.94, fill=False, ec=PALETTE[1]))
            labels = [f"{victim}\n{data}" if several else victim for data, victim in places]
            axis.set_xticks(range(len(places)), labels, rotation=45, ha="right")
            axis.set_yticks(range(len(names)), [title_of(name) for name in names])
            axis.set_title(title)
            axis.grid(False)
        figure.supxlabel("detector (framed: the patch was made against it)", fontsize=9)
    return figure


def _value(row: Mapping[str, Any] | None, column: str) -> float:
    return math.nan if row is None or row[column] is None else float(row[column])


def _write(axes: Axes, across: int, down: int, value: float, highest: float) -> None:
    if not math.isnan(value):
        colour = "white" if value > DARK * highest else "#222222"
        axes.text(across, down, f"{value:.2f}", ha="center", va="center", color=colour, fontsize=8)


def patches(pictures: Mapping[str, np.ndarray]) -> Figure:
    """What is drawn on people: (height, width, 3) each in [0, 1], by name."""
    columns = min(8, len(pictures))
    with house_style():
        figure, axes = panels(math.ceil(len(pictures) / columns), columns, 1.15, 2.1)
        for axis in axes:
            axis.set_axis_off()
        for axis, (name, pixels) in zip(axes, pictures.items(), strict=False):
            axis.imshow(pixels.clip(0, 1), interpolation="nearest")
            axis.set_title(title_of(name), fontsize=8)
    return figure


@dataclass(frozen=True)
class Scene:
    """An image with the boxes that a detector finds in it."""

    title: str
    pixels: np.ndarray
    """(height, width, 3) in [0, 1]"""
    corners: np.ndarray
    """(boxes, 4)"""
    names: Sequence[str]
    """what each box says, with its confidence"""
    of_class: np.ndarray
    """bool (boxes,): whether it is of the class that is to be hidden"""


def examples(scenes: Sequence[Sequence[Scene]]) -> Figure:
    """Images with boxes: a row for each image, a column for each thing that is drawn on it."""
    with house_style():
        figure, axes = panels(len(scenes), len(scenes[0]), 2.3, 2.45)
        for axis, scene in zip(axes, [scene for row in scenes for scene in row], strict=True):
            axis.imshow(scene.pixels.clip(0, 1), interpolation="nearest")
            axis.set_axis_off()
            axis.set_title(scene.title, fontsize=8)
            for box, name, own in zip(scene.corners, scene.names, scene.of_class, strict=True):
                colour = HIDDEN_COLOUR if own else OTHER_COLOUR
                left, top, right, bottom = box
                axis.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, ec=colour, lw=1.4))
                axis.text(
                    left, top, name, color="white", fontsize=6, va="top",
                    bbox={"facecolor": colour, "edgecolor": "none", "pad": 0.8},
                )  # fmt: skip
    return figure


def losses(traces: Mapping[str, np.ndarray], against: Mapping[str, Sequence[str]]) -> Figure:
    """The loss of each detector while a patch is searched for, smoothed over a fiftieth: (iterations, detectors)."""
    names = [name for name, trace in traces.items() if len(trace)]
    with house_style():
        columns = min(COLUMNS, max(1, len(names)))
        figure, axes = panels(math.ceil(max(1, len(names)) / columns), columns, 3.4, 2.4)
        for axis in axes[len(names) :]:
            axis.set_axis_off()
        for axis, name in zip(axes, names, strict=False):
            width = max(1, len(traces[name]) // 50)
            for detector, column in zip(against[name], traces[name].T, strict=True):
                smooth = np.convolve(column, np.ones(width) / width, mode="valid")
                axis.plot(np.arange(len(smooth)) + width, smooth, label=detector)
            axis.set_title(name)
            axis.set_ylim(bottom=0)
            axis.legend()
        figure.supxlabel("iteration", fontsize=9)
        figure.supylabel("loss of a detector, an image", fontsize=9)
    return figure
