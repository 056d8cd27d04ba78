"""The pictures of the benchmark of judges."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from jobs.common.figures.plots import GREY, PALETTE, house_style, panels
from jobs.common.metrics.detection import roc

LABELS = {
    "duration": "seconds of the excerpt",
    "noise": "decibels over white noise",
    "speed": "percent faster, pitch with it",
    "pitch": "semitones higher",
    "songs": "songs enrolled",
}
LOGARITHMIC = ("duration", "songs")
COLUMNS = 3


def levels(rows: Sequence[Mapping[str, Any]], costs: Sequence[Mapping[str, Any]], titles: Mapping[str, str]) -> Figure:
    """Shares of excerpts that are identified, a panel for each axis, a line for each judge; what they cost in the last.

    rows, costs: of `tables.level_rows` and `tables.cost_rows`. titles: of the judges, by name.
    """
    axes_names = [axis for axis in LABELS if any(row["axis"] == axis for row in rows)]
    count = len(axes_names) + 1
    columns = min(COLUMNS, count)
    with house_style():
        figure, axes = panels(-(-count // columns), columns, 3.9, 2.9)
        for axis in axes[count:]:
            axis.set_axis_off()
        for axis, name in zip(axes, axes_names, strict=False):
            _draw_axis(axis, name, [row for row in rows if row["axis"] == name], titles)
        _draw_costs(axes[count - 1], costs, titles)
        if axes_names:
            handles, labels = axes[0].get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 6))
    return figure


def _draw_axis(axes: Axes, name: str, rows: Sequence[Mapping[str, Any]], titles: Mapping[str, str]) -> None:
    for place, (judge, title) in enumerate(titles.items()):
        these = sorted((row for row in rows if row["judge"] == judge), key=lambda row: row["level"])
        if not these:
            continue
        at = [row["level"] for row in these]
        style = _style(place)
        axes.plot(at, [row["identified"] for row in these], "o", ms=3, label=title, lw=1.4, **style)
        ends = [row["identified_low"] for row in these], [row["identified_high"] for row in these]
        axes.vlines(at, *ends, color=style["color"], alpha=0.3, lw=0.8)
        if these[0]["false_alarms"] is not None:
            axes.plot(at, [row["false_alarms"] for row in these], color=style["color"], ls=":", lw=1)
    if name in LOGARITHMIC:
        axes.set_xscale("log")
        ticks = sorted({row["level"] for row in rows})
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
    dotted = "; dotted: false alarms" if any(row["false_alarms"] is not None for row in rows) else ""
    axes.set(xlabel=LABELS[name], ylabel="share identified", ylim=(-0.03, 1.05), title=f"{name}{dotted}")


def _draw_costs(axes: Axes, costs: Sequence[Mapping[str, Any]], titles: Mapping[str, str]) -> None:
    known = [row for row in costs if row["judge"] in titles]
    places = np.arange(len(known))
    for shift, column, label, colour in (
        (-0.2, "enrolled_in_seconds", "to enrol", PALETTE[0]),
        (0.2, "judged_in_seconds", "to judge", PALETTE[1]),
    ):
        values = [np.nan if row[column] is None else 1000 * row[column] for row in known]
        axes.barh(places + shift, values, height=0.36, label=label, color=colour)
    axes.set_yticks(places, [titles[row["judge"]] for row in known])
    axes.invert_yaxis()
    axes.set(xscale="log", xlabel="milliseconds of a core for a second of sound", title="cost")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    axes.legend()


def rocs(scores: Mapping[str, tuple[np.ndarray, np.ndarray]], titles: Mapping[str, str], rate: float) -> Figure:
    """The ROC of each judge on a logarithmic axis of false alarms.

    scores: of the right songs and of songs that are not enrolled, by judge. rate: that thresholds are calibrated for.
    """
    least = min((rate, *(1 / len(negatives) for _, negatives in scores.values() if len(negatives)))) / 2
    with house_style():
        figure, [axes] = panels(1, 1, 5.2, 3.6)
        for place, (name, (positives, negatives)) in enumerate(scores.items()):
            if len(positives) and len(negatives):
                alarms, detections = roc(positives, negatives)
                axes.step(
                    np.maximum(alarms, least), detections, where="post", label=titles[name], lw=1.4,
                    **_style(place),
                )  # fmt: skip
        axes.axvline(rate, color=GREY, lw=0.8, ls=":")
        axes.set(
            xscale="log", xlim=(least, 1.05), ylim=(-0.03, 1.05), ylabel="share of the right songs above a threshold",
            xlabel=f"share of other songs above it (at the left end: none; dotted: {rate:g})",
        )  # fmt: skip
        axes.legend(loc="lower right")
    return figure


def _style(place: int) -> dict[str, Any]:
    """Of a judge's line. Of more judges than there are colours the rest is dashed."""
    return {"color": PALETTE[place % len(PALETTE)], "ls": "-" if place < len(PALETTE) else "--"}
