"""The pictures of the study: what is left at which depth, sounds as spectrograms, the way of the objective."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jobs.common.audio.mel import LogMel
from jobs.common.figures.plots import GREY, PALETTE, house_style, ordered_colours, panels

MOST_COLUMNS = 8  # sounds of a layer that are drawn
RANGE = 12.0  # natural logarithms of power below the loudest, down to black


@dataclass(frozen=True)
class Picture:
    """A sound in a row of a figure. mels: (bands, frames)."""

    row: str
    caption: str
    mels: np.ndarray


@dataclass(frozen=True)
class Curve:
    """The objective along an ascent. values: (steps,)."""

    layer: str
    values: np.ndarray


def depth(layers: Sequence[str], probed: Sequence[Mapping[str, Any]], inverted: Sequence[Mapping[str, Any]]) -> Figure:
    """What probes read out of each layer, beside how far inversions from it are from the clip. layers: by depth."""
    order = [layer for layer in layers if any(row["layer"] == layer for row in (*probed, *inverted))]
    with house_style():
        figure, axes = panels(1, bool(probed) + bool(inverted), 5.2, 3.2)
        if probed:
            _draw_probes(axes[0], order, probed)
        if inverted:
            _draw_inversions(axes[-1], order, inverted)
    return figure


def _draw_probes(axes: Axes, order: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    for place, target in enumerate(dict.fromkeys(row["target"] for row in rows)):
        these = {row["layer"]: row for row in rows if row["target"] == target}
        at = [order.index(layer) for layer in these]
        measure = next(iter(these.values()))["measure"]
        axes.plot(
            at, [row["score"] for row in these.values()], "o-", label=f"{target} ({measure})", color=PALETTE[place % 7]
        )
    axes.set(
        ylabel="score of a linear probe", ylim=(min(-0.02, axes.get_ylim()[0]), 1.05), title="What can be read out"
    )
    axes.set_xticks(range(len(order)), order, rotation=30, ha="right")
    axes.legend()


def _draw_inversions(axes: Axes, order: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    for place, start in enumerate(dict.fromkeys(row["start"] for row in rows)):
        these = [row for row in rows if row["start"] == start]
        at = [order.index(layer) for layer in dict.fromkeys(row["layer"] for row in these)]
        errors = [np.mean([row["mel_error"] for row in these if order.index(row["layer"]) == each]) for each in at]
        right = [
            np.mean([row["predicted_class"] == row["class"] for row in these if order.index(row["layer"]) == each])
            for each in at
        ]
        label = start.replace("_", " ")
        axes.plot(at, errors, "o-", color=PALETTE[place], label=f"error of the spectrogram, from {label}")
        axes.plot(at, right, "s--", color=PALETTE[place], label=f"share recognised, from {label}", alpha=0.6)
    axes.axhline(1, color=GREY, lw=0.8)
    axes.set(
        ylabel="error (1: as far as the mean spectrum)", title="What a sound must have for the layer to answer the same"
    )
    axes.set_ylim(0, 1.6 * axes.get_ylim()[1])  # room for the legend
    axes.set_xticks(range(len(order)), order, rotation=30, ha="right")
    axes.legend()


def sounds(pictures: Sequence[Picture], mel: LogMel) -> Figure:
    """Log-mel spectrograms, a row for each layer, all with one range of power below their loudest."""
    rows = {
        name: [each for each in pictures if each.row == name][:MOST_COLUMNS]
        for name in dict.fromkeys(each.row for each in pictures)
    }
    columns = max(map(len, rows.values()))
    with house_style():
        figure, axes = panels(len(rows), columns, 1.7, 1.5)
        for axis in axes:
            axis.set_axis_off()
        for row, (name, these) in enumerate(rows.items()):
            for column, picture in enumerate(these):
                axis = axes[row * columns + column]
                axis.set_axis_on()
                _draw_mels(axis, picture, mel)
                if not column:
                    axis.set_ylabel(name, fontsize=9)
    return figure


def _draw_mels(axes: Axes, picture: Picture, mel: LogMel) -> None:
    top = float(picture.mels.max())
    seconds = picture.mels.shape[1] * mel.hop / mel.rate
    axes.imshow(
        picture.mels, origin="lower", aspect="auto", vmin=top - RANGE, vmax=top, cmap="magma",
        extent=(0, seconds, 0, mel.bands), interpolation="nearest",
    )  # fmt: skip
    axes.set_title(picture.caption, fontsize=7)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)


def ascent(curves: Sequence[Curve]) -> Figure:
    """The objective of every sound while it is optimised; the median of each layer is thick."""
    layers = list(dict.fromkeys(curve.layer for curve in curves))
    with house_style():
        figure, [axes] = panels(1, 1, 6.0, 3.2)
        for layer, colour in zip(layers, ordered_colours(len(layers)), strict=True):
            values = np.stack([curve.values for curve in curves if curve.layer == layer])
            at = np.linspace(0, 1, values.shape[1])
            for each in values:
                axes.plot(at, each, color=colour, lw=0.4, alpha=0.4)
            axes.plot(at, np.median(values, 0), color=colour, lw=1.8, label=layer)
        axes.set(xlabel="share of the steps", ylabel="objective, under random changes")
        axes.legend(ncols=2)
    return figure
