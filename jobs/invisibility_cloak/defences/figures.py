"""The picture of the defences: what they bring back under attack, what they cost without one."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jobs.common.figures.plots import GREY, PALETTE, house_style, panels

SHOWN = {
    "without a patch": ("clean", "other", PALETTE[6], "o"),
    "a grey patch": ("grey", "other", GREY, "s"),
    "patches against the detector": ("patch", "the detector", PALETTE[1], "o"),
    "patches against it behind the defence": ("patch", "the defence", PALETTE[3], "D"),
}
"""name or kind of a row, what it was made against, colour and marker"""
TITLES = {"none": "no defence", "occlusion_vote": "occlusion vote"}


def defences(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """A panel for each detector, a column for each defence: AP50 with 95 % intervals over images."""
    detectors = list(dict.fromkeys(row["detector"] for row in rows))
    with house_style():
        figure, every = panels(1, len(detectors), 4.2, 3.0, sharey=True)
        for axes, detector in zip(every, detectors, strict=True):
            own = [row for row in rows if row["detector"] == detector]
            names = list(dict.fromkeys(row["defence"] for row in own))
            for label, shown in SHOWN.items():
                _draw(axes, own, names, label, shown)
            axes.set_xticks(range(len(names)), [TITLES.get(name, name) for name in names], rotation=20, ha="right")
            axes.set_xlim(-0.5, len(names) - 0.5)
            axes.set_ylim(-0.02, 1.02)
            axes.set_title(f"detector {detector}")
        every[0].set_ylabel("AP50 of people")
        handles, labels = every[0].get_legend_handles_labels()
        found = dict(zip(labels, handles, strict=True))
        figure.legend(list(found.values()), list(found), loc="outside lower center", ncols=2)
    return figure


def _draw(
    axes: Axes,
    rows: Sequence[Mapping[str, Any]],
    names: Sequence[str],
    label: str,
    shown: tuple[str, str, str, str],
) -> None:
    name, made, colour, marker = shown
    own = [row for row in rows if name in (row["patch"], row["kind"]) and row["made_against"] == made]
    own = [row for row in own if row["ap50"] is not None and row["ap50_low"] is not None]
    shift = 0.14 * (list(SHOWN).index(label) - 1.5)
    for number, row in enumerate(own):
        at = names.index(row["defence"]) + shift + 0.03 * (number % 3 - 1)
        axes.plot([at, at], [row["ap50_low"], row["ap50_high"]], color=colour, lw=1.2)
        axes.plot([at], [row["ap50"]], marker, color=colour, ms=4.5, label=label, ls="none")
