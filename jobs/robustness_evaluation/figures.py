"""The pictures of an evaluation: security curves, and adversarial images beside the clean ones."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from jobs.common.figures.plots import PALETTE, house_style, panels

BLACK = "#000000"


@dataclass(frozen=True)
class Curve:
    """Robust accuracy against epsilon. epsilons: ascending, 0 for the clean images; all others shares in [0, 1]."""

    label: str
    epsilons: Sequence[float]
    accuracy: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    bold: bool = False
    """whether it is the worst case"""


@dataclass(frozen=True)
class Example:
    """An image and what an attack made of it. clean, adversarial: (channels, height, width) in [0, 1]."""

    clean: Tensor
    adversarial: Tensor
    label: str
    """the class of the clean image"""
    prediction: str
    """the class that the network sees in the adversarial one"""
    attack: str


def security_curves(curves: Sequence[Curve], norm: str, title: str = "") -> Figure:
    """One line a curve, with a band for its interval; broad and black, below the others: the worst case.

    Source: Biggio & Roli 2018, section 4.
    """
    colours = itertools.cycle(colour for colour in PALETTE if colour != BLACK)
    with house_style():
        figure, (axes,) = panels(1, 1, 5.6, 3.8)
        for curve in sorted(curves, key=lambda curve: not curve.bold):
            colour, width = (BLACK, 3.4) if curve.bold else (next(colours), 1.4)
            epsilons = np.asarray(curve.epsilons)
            low, high = 100 * np.asarray(curve.low), 100 * np.asarray(curve.high)
            axes.fill_between(epsilons, low, high, color=colour, alpha=0.12, lw=0)
            axes.plot(epsilons, 100 * np.asarray(curve.accuracy), "o-", ms=3, color=colour, lw=width, label=curve.label)
        unit = "coordinates that change" if norm == "L0" else "pixels in [0, 1]"
        axes.set(xlabel=f"epsilon ({norm}, {unit})", ylabel="robust accuracy (%)", ylim=(-3, 103), title=title)
        axes.set_xlim(left=0)
        figure.legend(loc="outside lower center", ncols=min(len(curves), 4))
    return figure


def adversarial_images(examples: Sequence[Example]) -> Figure:
    """One column an image: clean, adversarial, and their difference, of which grey is none and the largest is full."""
    with house_style():
        figure, axes = panels(3, len(examples), 1.25, 1.4)
        for column, example in enumerate(examples):
            difference = example.adversarial - example.clean
            largest = max(float(difference.abs().amax()), 1e-12)
            shown = (example.clean, example.adversarial, 0.5 + difference / (2 * largest))
            titles = (example.label, example.prediction, f"±{largest:.2g}")
            for row, (picture, title) in enumerate(zip(shown, titles, strict=True)):
                each = axes[row * len(examples) + column]
                each.imshow(_pixels(picture), interpolation="nearest", cmap="gray", vmin=0, vmax=1)
                each.set(xticks=[], yticks=[])
                each.grid(visible=False)
                each.set_title(title, fontsize=8, loc="center")
            axes[2 * len(examples) + column].set_xlabel(example.attack, fontsize=7)
        for row, name in enumerate(("clean", "adversarial", "difference")):
            axes[row * len(examples)].set_ylabel(name)
    return figure


def _pixels(image: Tensor) -> np.ndarray:
    """(channels, height, width) -> (height, width) if there is one channel, else the first three in colour."""
    array: np.ndarray = image.clamp(0, 1).numpy()
    return array[0] if len(array) < 3 else array[:3].transpose(1, 2, 0)
