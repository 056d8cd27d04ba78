"""The pictures of a study: poisons beside what they are made of, success, histograms, features in two dimensions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from jobs.common.figures.plots import GREY, PALETTE, house_style, panels

CLEAN_COLOURS = (PALETTE[0], PALETTE[2])  # of the classes of targets and of bases
TARGET, POISON = PALETTE[1], PALETTE[6]


@dataclass(frozen=True)
class Example:
    """One poison. Images: (channels, height, width) in [0, 1]."""

    target: Tensor
    base: Tensor
    poison: Tensor
    true_class: str
    """of the target"""
    base_class: str
    caption: str
    """what became of the target"""


@dataclass(frozen=True)
class Curve:
    """Success against the number of poisons. rate, low, high: shares in [0, 1]."""

    label: str
    poisons: Sequence[int]
    rate: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


@dataclass(frozen=True)
class Projection:
    """Features in the plane that is spanned by the line between two classes and by a decision boundary."""

    clean: np.ndarray
    """(n, 2)"""
    of_base: np.ndarray
    """bool (n,)"""
    targets: np.ndarray
    """(k, 2)"""
    poisons: np.ndarray
    """(p, 2)"""
    bases: np.ndarray
    """(p, 2) what the poisons were made of"""
    names: tuple[str, str]
    """classes of the targets and of the bases"""


def poison_rows(examples: Sequence[Example]) -> Figure:
    """A row each: target, base, poison, and poison minus base, of which grey is none and the largest is full."""
    with house_style():
        figure, axes = panels(len(examples), 4, 1.5, 1.6)
        for row, each in enumerate(examples):
            difference = each.poison - each.base
            largest = max(float(difference.abs().max()), 1e-12)
            pictures = (each.target, each.base, each.poison, 0.5 + difference / (2 * largest))
            change = f"difference ±{largest:.2g}" if bool(difference.any()) else "no difference"
            titles = (f"target: {each.true_class}", f"base: {each.base_class}", f"poison: {each.base_class}", change)
            for column, (picture, title) in enumerate(zip(pictures, titles, strict=True)):
                one = axes[4 * row + column]
                one.imshow(_pixels(picture), interpolation="nearest", cmap="gray", vmin=0, vmax=1)
                one.set(xticks=[], yticks=[])
                one.grid(visible=False)
                one.set_title(title, fontsize=7, loc="center")
            axes[4 * row].set_ylabel(each.caption, fontsize=7)
    return figure


def curves(rows: Sequence[Mapping[str, Any]]) -> list[Curve]:
    """One curve for each kind of victim and defence, from the rows of the table of rates."""
    curves = []
    for victim, defence in dict.fromkeys((row["victim"], row["defence"]) for row in rows):
        points = [row for row in rows if (row["victim"], row["defence"], row["control"]) == (victim, defence, "poison")]
        if points:
            curves.append(
                Curve(
                    label=f"{victim} behind {defence}" if defence else victim,
                    poisons=[row["poisons"] for row in points],
                    rate=[row["success"] for row in points],
                    low=[row["low"] for row in points],
                    high=[row["high"] for row in points],
                )
            )
    return curves


def controls_of(rows: Sequence[Mapping[str, Any]], victim: str) -> dict[str, float]:
    """The rates of the controls of a victim without defence, by what they are."""
    controls = [row for row in rows if (row["victim"], row["defence"]) == (victim, "") and row["control"] != "poison"]
    return {row["control"]: row["success"] for row in controls}


def success(curves: Sequence[Curve], controls: Mapping[str, float] | None = None, title: str = "") -> Figure:
    """A line a victim, with its 95 % interval. controls: rates that are drawn as grey lines, by their names."""
    counts = sorted({count for curve in curves for count in curve.poisons})
    with house_style():
        figure, (axes,) = panels(1, 1, 5.4, 3.8)
        for number, curve in enumerate(curves):
            colour = PALETTE[number % len(PALETTE)]
            # those that share a number of poisons stand side by side
            at = np.asarray(curve.poisons) + 0.012 * (number - (len(curves) - 1) / 2) * (max(counts) + 1)
            rate, low, high = (100 * np.asarray(each) for each in (curve.rate, curve.low, curve.high))
            errors = np.clip([rate - low, high - rate], 0, None)
            axes.errorbar(at, rate, errors, fmt="o-", ms=4, lw=1.5, capsize=3, color=colour, label=curve.label)
        for (label, control), style in zip((controls or {}).items(), (":", "--"), strict=False):
            axes.axhline(100 * control, color=GREY, ls=style, lw=1.2, label=label)
        axes.set(xlabel="poisons for a target", ylabel="targets taken for the base class (%)", title=title)
        axes.set(ylim=(-4, 104), xlim=(min(0, min(counts) - 1), 1.06 * max(counts) + 0.5))
        axes.set_xticks(counts)
        figure.legend(loc="outside lower center", ncols=3)
    return figure


def histograms(confidence: Sequence[float], clean: Sequence[float], angles: Sequence[float], title: str = "") -> Figure:
    """Probability of the base class for the targets, with and without poison; rotation of the boundary in degrees."""
    with house_style():
        figure, (left, right) = panels(1, 2)
        bins = np.linspace(0, 1, 26).tolist()
        left.hist(list(clean), bins, color=GREY, alpha=0.7, label="without poison")
        left.hist(list(confidence), bins, color=PALETTE[1], alpha=0.7, label="with poison")
        left.set(xlabel="probability of the base class", ylabel="targets", title=title)
        left.legend()
        finite = [angle for angle in angles if np.isfinite(angle)]
        if finite:
            right.hist(finite, 20, color=PALETTE[0])
            right.axvline(float(np.mean(finite)), color=PALETTE[1], label=f"mean {np.mean(finite):.3g}°")
            right.legend()
        right.set(xlabel="rotation of the boundary (degrees)", ylabel="victims")
    return figure


def distances(collision: Sequence[float], neighbour: Sequence[float], fell: Sequence[bool]) -> Figure:
    """Each target: how near its poison came, against how near its nearest training image is."""
    with house_style():
        figure, (axes,) = panels(1, 1)
        x, y, hit = np.asarray(neighbour), np.asarray(collision), np.asarray(fell, dtype=bool)
        for mark, chosen, colour, label in (("o", hit, PALETTE[1], "fell"), ("x", ~hit, PALETTE[0], "stood")):
            if chosen.any():
                axes.plot(x[chosen], y[chosen], mark, ms=4, color=colour, label=f"{label} ({chosen.sum()})")
        axes.set(xlabel="target to nearest training image", ylabel="target to poison", yscale="log")
        axes.legend()
    return figure


def plane(features: Tensor, of_base: Tensor, weight: Tensor) -> Tensor:
    """Two axes (2, D): from the mean of the target class to that of the base class, and what is left of the weights.

    features: (n, D) of clean images of both classes. of_base: bool (n,). weight: (D,) of the base class. Both axes have
    length 1. Source: Shafahi et al. 2018, figure 4.
    """
    first = features[of_base].mean(0) - features[~of_base].mean(0)
    first = first / first.norm().clamp(min=1e-12)
    second = weight - (weight @ first) * first
    return torch.stack([first, second / second.norm().clamp(min=1e-12)])


def projection(shown: Projection, title: str = "") -> Figure:
    """The plane, with an arrow from each base to its poison."""
    with house_style():
        figure, (axes,) = panels(1, 1, 5.4, 4.2)
        for base, name in enumerate(shown.names):
            points = shown.clean[shown.of_base == bool(base)]
            axes.plot(*points.T, ".", ms=4, alpha=0.5, color=CLEAN_COLOURS[base], label=f"training: {name}")
        for base_point, poison in zip(shown.bases, shown.poisons, strict=True):
            axes.annotate("", poison, base_point, arrowprops={"arrowstyle": "-", "color": GREY, "lw": 0.5})
        axes.plot(*shown.bases.T, "s", ms=4, mfc="none", color=CLEAN_COLOURS[1], label="bases")
        axes.plot(*shown.poisons.T, "x", ms=6, color=POISON, label="poisons")
        axes.plot(*shown.targets.T, "*", ms=9, color=TARGET, label="targets")
        axes.set(xlabel="from the target class to the base class", ylabel="along the base class's weights", title=title)
        figure.legend(loc="outside lower center", ncols=3)
    return figure


def _pixels(image: Tensor) -> np.ndarray:
    """(channels, height, width) -> (height, width) if there is one channel, else the first three in colour."""
    array: np.ndarray = image.clamp(0, 1).numpy()
    return array[0] if len(array) < 3 else array[:3].transpose(1, 2, 0)
