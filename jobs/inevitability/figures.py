"""The pictures of the study: curves under their ceilings, curves at several resolutions, perturbed images."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from jobs.common.figures.plots import GREY, PALETTE, house_style, ordered_colours, panels

BLACK = "#000000"
COLOURS = tuple(colour for colour in PALETTE if colour != BLACK)
LINES: tuple[Any, ...] = ("-", (0, (6, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)), (0, (6, 2, 1, 2, 1, 2)))
"""of the ceilings of bounds, one after another"""
MARKERS = ("s", "^", "D", "v", "P")
"""of those by concentration, which are dashed"""
SHADES = (BLACK, "#777777")
"""for more ceilings than there are lines or markers"""


@dataclass(frozen=True)
class Line:
    """A curve. epsilons: ascending; the others are shares in [0, 1], one for each."""

    label: str
    epsilons: Sequence[float]
    accuracy: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


@dataclass(frozen=True)
class CeilingLine:
    """A ceiling. epsilons: ascending; values: shares in [0, 1], one for each."""

    source: str
    label: str
    epsilons: Sequence[float]
    values: Sequence[float]


@dataclass(frozen=True)
class Panel:
    """What is drawn of one norm."""

    norm: str
    lines: Sequence[Line]
    ceilings: Sequence[CeilingLine] = ()
    silent: Mapping[str, float] = field(default_factory=dict)
    """bounds that say nothing here, and from which epsilon on they do; infinity: nowhere"""
    title: str | None = None
    """none: the norm"""


def curves_under_ceilings(shown: Sequence[Panel]) -> Figure:
    """A panel a norm: measured curves with 95 % intervals in colour, ceilings in black; above a ceiling it is grey.

    Several ceilings of one source are told apart by their lines (bounds) or markers (concentration).
    Bounds that say nothing are not drawn: below the panel it is said from where on they do.
    """
    labels = list(dict.fromkeys(line.label for panel in shown for line in panel.lines))
    colours = {label: COLOURS[place % len(COLOURS)] for place, label in enumerate(labels)}
    styles = {label: ("-", "--", ":", "-.")[place // len(COLOURS) % 4] for place, label in enumerate(labels)}
    ceilings = dict.fromkeys((one.source == "concentration", one.label) for panel in shown for one in panel.ceilings)
    looks = {
        key: _look(concentration, number)
        for concentration in (False, True)
        for number, key in enumerate(key for key in ceilings if key[0] == concentration)
    }
    with house_style():
        figure, axes = panels(1, len(shown), 5.2, 4.0, sharey=True)
        for each, panel in zip(axes, shown, strict=True):
            for line in panel.lines:
                epsilons, accuracy, low, high = map(np.asarray, (line.epsilons, line.accuracy, line.low, line.high))
                colour = colours[line.label]
                each.fill_between(epsilons, 100 * low, 100 * high, color=colour, alpha=0.12, lw=0)
                style: dict[str, Any] = {"marker": "o", "ms": 3, "lw": 1.4, "ls": styles[line.label], "color": colour}
                each.plot(epsilons, 100 * accuracy, label=line.label, **style)
            for ceiling in panel.ceilings:
                _draw_ceiling(each, ceiling, looks[ceiling.source == "concentration", ceiling.label])
            each.set(xlabel=_under(panel), ylim=(-3, 107), title=panel.title or panel.norm)
            each.set_xlim(left=0)
        axes[0].set_ylabel("robust accuracy (%)")
        named = [zip(*each.get_legend_handles_labels(), strict=True) for each in axes]
        handles = {label: handle for own in named for handle, label in own}
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4)
    return figure


def _look(concentration: bool, number: int) -> dict[str, Any]:
    """How a ceiling is drawn. number: among those of its source, from 0."""
    kinds = MARKERS if concentration else LINES
    round_, place = divmod(number, len(kinds))
    line = {"marker": kinds[place], "ls": "--"} if concentration else {"ls": kinds[place]}
    return {**line, "color": SHADES[round_ % len(SHADES)]}


def _draw_ceiling(axes: Axes, ceiling: CeilingLine, look: dict[str, Any]) -> None:
    epsilons, values = np.asarray(ceiling.epsilons), 100 * np.asarray(ceiling.values)
    axes.fill_between(epsilons, values, 107, color=GREY, alpha=0.15, lw=0, zorder=0)
    axes.plot(epsilons, values, ms=4, mfc="white", lw=1.6, label=ceiling.label, **look)


def _under(panel: Panel) -> str:
    """What stands below a panel: its axis, and the bounds that say nothing in it."""
    axis = f"epsilon ({panel.norm}, {'coordinates that change' if panel.norm == 'L0' else 'pixels in [0, 1]'})"
    if not panel.silent:
        return axis
    nowhere = [label for label, first in panel.silent.items() if math.isinf(first)]
    later = [f"{first:.3g} ({label})" for label, first in panel.silent.items() if not math.isinf(first)]
    sentences = [f"the bounds say nothing below {', '.join(later)}"] if later else []
    sentences += [f"the bounds say nothing at any epsilon ({', '.join(nowhere)})"] if nowhere else []
    return "\n".join([axis, *(textwrap.fill(sentence, 75) for sentence in sentences)])


@dataclass(frozen=True)
class Growth:
    """The regions of one search. epsilons: ascending; for each, the shares in the expansion, one for each seed."""

    search: str
    epsilons: Sequence[float]
    fitted: Sequence[Sequence[float]]
    """of the points fitted to"""
    others: Sequence[Sequence[float]]
    """of the points not fitted to"""


def growth(regions: Mapping[str, Sequence[Growth]], alpha: float) -> Figure:
    """A panel a norm: how much of the images lies within epsilon of the region that each search ends with.

    A line: the mean over seeds, of images not fitted to, in a band from the least to the most; dashes: of those fitted
    to. Grey: alpha, the mass of the regions themselves.
    """
    searches = list(dict.fromkeys(each.search for own in regions.values() for each in own))
    colours = {search: COLOURS[place % len(COLOURS)] for place, search in enumerate(searches)}
    with house_style():
        figure, axes = panels(1, len(regions), 4.4, 3.6, sharey=True)
        for each, (norm, own) in zip(axes, regions.items(), strict=True):
            for one in own:
                style: dict[str, Any] = {"color": colours[one.search], "marker": "o", "ms": 3}
                fitted, others = ([100 * np.array(risk) for risk in part] for part in (one.fitted, one.others))
                least, most = ([bound(risk) for risk in others] for bound in (np.min, np.max))
                each.fill_between(one.epsilons, least, most, color=colours[one.search], alpha=0.15, lw=0)
                each.plot(one.epsilons, [risk.mean() for risk in others], label=one.search, lw=1.4, **style)
                each.plot(one.epsilons, [risk.mean() for risk in fitted], ls="--", lw=0.9, **style | {"marker": ""})
            each.axhline(100 * alpha, color=GREY, lw=1, zorder=0)
            each.set(xlabel=f"epsilon ({norm}, pixels in [0, 1])", title=norm)
            each.set_xlim(left=0)
        axes[0].set_ylim(bottom=0)  # of all panels, once all is drawn
        axes[0].set_ylabel("images within epsilon of the region (%)")
        named = [zip(*each.get_legend_handles_labels(), strict=True) for each in axes]
        handles = {label: handle for own in named for handle, label in own}
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4)
    return figure


@dataclass(frozen=True)
class ResolutionLine:
    """A curve of a network at a resolution. epsilons, scaled: ascending; accuracy: shares in [0, 1], one for each."""

    resolution: int
    averaged: bool
    """whether it is the network of resolution 1 behind an average"""
    epsilons: Sequence[float]
    scaled: Sequence[float]
    accuracy: Sequence[float]


def resolutions(lines: Mapping[str, Mapping[str, Sequence[ResolutionLine]]], growing: Sequence[str]) -> Figure:
    """A row a network, one or two columns a norm: against epsilon over the factor of the resolution, where all curves
    are to coincide, and against epsilon itself, for norms that grow with the resolution.

    lines: by network, then by norm. growing: those norms. Trained networks are lines; squares: averaged ones.
    """
    norms = list(dict.fromkeys(norm for own in lines.values() for norm in own))
    columns = [(norm, scaled) for norm in norms for scaled in ((True, False) if norm in growing else (True,))]
    known = sorted({line.resolution for own in lines.values() for each in own.values() for line in each})
    colours = dict(zip(known, ordered_colours(len(known)), strict=True))
    with house_style():
        figure, axes = panels(len(lines), len(columns), 3.3, 2.2, sharey=True, sharex="col")
        for row, (network, own) in enumerate(lines.items()):
            for column, (norm, scaled) in enumerate(columns):
                each = axes[row * len(columns) + column]
                for line in own.get(norm, ()):
                    epsilons = np.asarray(line.scaled if scaled else line.epsilons)
                    shown = epsilons <= (1 + 1e-9) * max(own[norm][0].scaled)
                    style = {"ls": "", "marker": "s", "ms": 6, "mfc": "none"} if line.averaged else {"marker": "o"}
                    if not line.averaged:
                        style |= {"ls": "-", "ms": 3, "lw": 1.4}
                    accuracy = 100 * np.asarray(line.accuracy)[shown]
                    each.plot(epsilons[shown], accuracy, color=colours[line.resolution], **style)
                each.set(ylim=(-3, 103))
                if row == 0:
                    law = {"Linf": "", "L2": " / b", "L1": " / b²", "L0": " / b²"}[norm] if scaled else ""
                    each.set_title(f"{norm}: against epsilon{law}" + ("" if scaled else " as it is"))
            axes[row * len(columns)].set_ylabel(f"{network}\nrobust (%)")
        for resolution, colour in colours.items():
            axes[0].plot([], [], "o-", ms=3, color=colour, label=f"b = {resolution}")
        if any(line.averaged for own in lines.values() for each in own.values() for line in each):
            axes[0].plot([], [], "s", mfc="none", color=GREY, label="network of b = 1 behind an average of blocks")
        figure.legend(loc="outside lower center", ncols=len(known) + 1)
    return figure


@dataclass(frozen=True)
class Column:
    """Images under one budget. images: (k, channels, height, width) in [0, 1]; titles: one for each."""

    title: str
    images: Tensor
    titles: Sequence[str]


def perturbed_images(columns: Sequence[Column]) -> Figure:
    """A row an image: as it is, then within each budget, each with what the network says of it.

    After figure 1 of Shafahi et al. 2019 ("Are adversarial examples inevitable?").
    """
    count = len(columns[0].images)
    with house_style():
        figure, axes = panels(count, len(columns), 1.7, 1.85)
        for row in range(count):
            for place, column in enumerate(columns):
                each = axes[row * len(columns) + place]
                pixels = column.images[row].clamp(0, 1).numpy()
                shown = pixels[0] if len(pixels) < 3 else pixels[:3].transpose(1, 2, 0)
                each.imshow(shown, interpolation="nearest", cmap="gray", vmin=0, vmax=1)
                each.set(xticks=[], yticks=[])
                each.grid(visible=False)
                each.set_xlabel(column.titles[row], fontsize=8)
                if row == 0:
                    each.set_title(column.title, loc="center")
    return figure
