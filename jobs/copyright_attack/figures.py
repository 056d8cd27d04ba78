"""The pictures of the study: does the attack beat the noise, how much noise does as much, peaks before and after."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jobs.common.figures.plots import GREY, PALETTE, house_style, panels
from jobs.copyright_attack.clips import ATTACK, ORIGINAL

Row = Mapping[str, Any]
COLUMNS = 3
RANGE = 70.0  # dB below the loudest, down to black
NOISE_STYLES = {"uniform": "--", "gaussian": ":"}


def identified(shares: Sequence[Row], titles: Mapping[str, str]) -> Figure:
    """Whether songs are still identified, against the size of the bound: a panel for each judge.

    Attacks are lines, noise of equal norm is the same colour in dashes; bars are 95 % intervals over songs. titles: of
    the judges, by name.
    """
    judges = [name for name in titles if any(row["judge"] == name for row in shares)]
    columns = min(COLUMNS, len(judges))
    with house_style():
        figure, axes = panels(math.ceil(len(judges) / columns), columns, 3.6, 2.9, sharey=True)
        for axis in axes[len(judges) :]:
            axis.set_axis_off()
        for axis, judge in zip(axes, judges, strict=False):
            _draw_shares(axis, [row for row in shares if row["judge"] == judge and not row["kilobits"]])
            axis.set_title(titles[judge])
        for axis in axes[max(0, len(judges) - columns) : len(judges)]:
            axis.set_xlabel("size of the bound")
        figure.supylabel("share of songs identified", fontsize=9)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


def _draw_shares(axes: Axes, rows: Sequence[Row]) -> None:
    own = [row for row in rows if row["kind"] == ORIGINAL]
    widest = max(row["epsilon"] for row in rows)
    attacks = list(dict.fromkeys(row["attack"] for row in rows if row["kind"] == ATTACK))
    for place, attack in enumerate(attacks):
        colour = PALETTE[place % len(PALETTE)]
        for kind, style, label in (
            (ATTACK, "o-", attack),
            ("uniform", "s--", f"noise of the norm of {attack}"),
        ):
            line = own + sorted(
                (row for row in rows if row["kind"] == kind and row["attack"] == attack), key=lambda row: row["epsilon"]
            )
            # lines that lie on each other are drawn beside each other
            at = [row["epsilon"] + 0.008 * widest * (place - (len(attacks) - 1) / 2) for row in line]
            shares = np.array([row["identified"] for row in line])
            below = shares - [row["low"] for row in line]
            above = np.array([row["high"] for row in line]) - shares
            axes.errorbar(
                at, shares, [below.clip(0), above.clip(0)], fmt=style, color=colour, label=label, ms=4, lw=1.4,
                elinewidth=0.6, capsize=2, alpha=1 if kind == ATTACK else 0.5,
            )  # fmt: skip
    axes.set_ylim(-0.05, 1.05)


def ratios(rows: Sequence[Row], titles: Mapping[str, str]) -> Figure:
    """How many times the attack's norm noise needs, for each judge: medians with 95 % intervals over songs."""
    judges = [name for name in titles if any(row["judge"] == name for row in rows)]
    finite = [row[column] for row in rows for column in ("ratio", "high")]
    finite = [value for value in finite if value is not None and 0 < value < math.inf]
    far = 1.3 * max([2.0, *finite])  # where what is infinite is drawn
    near = 1 / far  # and what is 0: noise did, and the attack did not
    with house_style():
        figure, [axes] = panels(1, 1, 6.0, 0.9 + 0.5 * len(judges))
        for offset, (noise, colour) in enumerate(zip(("uniform", "gaussian"), PALETTE, strict=False)):
            for place, judge in enumerate(judges):
                row = next((row for row in rows if row["judge"] == judge and row["noise"] == noise), None)
                if row is None or row["ratio"] is None:
                    continue
                height = place + 0.16 * (2 * offset - 1)
                ratio = min(far, max(near, row["ratio"]))
                if row["low"] is not None:
                    low, high = (min(far, max(near, row[end])) for end in ("low", "high"))
                    axes.plot([low, high], [height, height], color=colour, lw=1.4)
                marker = {0.0: "<", math.inf: ">"}.get(row["ratio"], "o")
                axes.plot([ratio], [height], marker, color=colour, label=f"{noise} noise" if not place else None)
        axes.axvline(1, color=GREY, lw=0.8)
        axes.set_xscale("log")
        doublings = [2.0**power for power in range(-10, 11) if near <= 2.0**power <= far]
        axes.set_xticks(doublings, [f"{each:g}" for each in doublings])
        axes.minorticks_off()
        axes.set_yticks(range(len(judges)), [titles[judge] for judge in judges])
        axes.invert_yaxis()
        label = "norm of noise over norm of the attack, where each loses the song"
        axes.set_xlabel(f"{label}\n(arrow: noise never did, or the attack did not)")
        axes.legend()
    return figure


def survival(shares: Sequence[Row], titles: Mapping[str, str]) -> Figure:
    """What MP3 files of some rates do to an attack: the share of songs identified, each attack at its largest size."""
    judges = [name for name in titles if any(row["judge"] == name for row in shares)]
    rates = sorted({row["kilobits"] for row in shares}, key=lambda rate: rate or 10_000, reverse=True)
    with house_style():
        columns = min(COLUMNS, len(judges))
        figure, axes = panels(math.ceil(len(judges) / columns), columns, 3.6, 2.6, sharey=True)
        for axis in axes[len(judges) :]:
            axis.set_axis_off()
        for axis, judge in zip(axes, judges, strict=False):
            rows = [row for row in shares if row["judge"] == judge and row["kind"] in (ORIGINAL, ATTACK)]
            sizes: dict[str, float] = {}
            for row in rows:
                sizes[row["attack"]] = max(row["epsilon"], sizes.get(row["attack"], 0))
            for place, attack in enumerate(sizes):
                line = {
                    row["kilobits"]: row["identified"]
                    for row in rows
                    if row["attack"] == attack and row["epsilon"] == sizes[attack]
                }
                at = [place_ for place_, rate in enumerate(rates) if rate in line]
                label = f"{attack}, {sizes[attack]:g}" if attack else "the original"
                colour = PALETTE[(place - 1) % len(PALETTE)] if attack else GREY
                beside = [each + 0.03 * place for each in at]
                axis.plot(beside, [line[rates[each]] for each in at], "o-", color=colour, label=label)
            axis.set_title(titles[judge])
            axis.set_ylim(-0.05, 1.05)
            axis.set_xticks(range(len(rates)), [f"{rate} kbit/s" if rate else "WAV" for rate in rates])
        figure.supylabel("share of songs identified", fontsize=9)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


@dataclass(frozen=True)
class Spectrogram:
    """A sound in a figure. magnitudes: (bins, frames). kept, gone, new: bool of the same shape: peaks that both have,
    peaks of the original that are no longer there, peaks that the original has not.
    """

    title: str
    magnitudes: np.ndarray
    kept: np.ndarray
    gone: np.ndarray
    new: np.ndarray


def spectrograms(pictures: Sequence[Spectrogram], rate: int, hop: int, seconds: float = 4.0) -> Figure:
    """Spectrograms with their peaks, the first seconds of each. rate: of the fingerprint, hop: in samples."""
    with house_style():
        figure, axes = panels(len(pictures), 1, 8.0, 2.2, sharex=True)
        for axis, picture in zip(axes, pictures, strict=True):
            frames = min(picture.magnitudes.shape[1], max(2, round(seconds * rate / hop)))
            levels = 20 * np.log10(picture.magnitudes[:, :frames].clip(1e-9))
            bins = picture.magnitudes.shape[0]
            axis.imshow(
                levels, origin="lower", aspect="auto", cmap="Greys", vmin=levels.max() - RANGE, vmax=levels.max(),
                extent=(-0.5 * hop / rate, (frames - 0.5) * hop / rate, -0.5, bins - 0.5), interpolation="nearest",
            )  # fmt: skip
            for marks, colour, marker, label in (
                (picture.kept, PALETTE[0], "o", "peak of both"),
                (picture.gone, PALETTE[1], "x", "peak of the original, gone"),
                (picture.new, PALETTE[2], "+", "new peak"),
            ):
                at, frame = np.nonzero(marks[:, :frames])
                if len(at):
                    axis.plot(frame * hop / rate, at, marker, color=colour, ms=4, mew=1, mfc="none", label=label)
            axis.set_title(picture.title, fontsize=9)
            ticks = np.arange(0, rate / 2000 + 0.01, 1 if rate < 16_000 else 2)
            axis.set_yticks(ticks * 1000 / (rate / 2) * (bins - 1), [f"{tick:g}" for tick in ticks])
            axis.set_ylabel("kHz")
            axis.grid(False)
        axes[-1].set_xlabel("seconds")
        handles: dict[str, Any] = {}
        for axis in axes:
            handles |= dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3)
    return figure
