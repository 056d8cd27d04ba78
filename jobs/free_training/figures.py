"""The pictures of the study: what robustness costs, and how it comes about during training."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from jobs.common.figures.plots import GREY, PALETTE, house_style, panels


@dataclass(frozen=True)
class Cost:
    """One trial: how robust it became, and for how much. accuracies: shares in [0, 1]."""

    label: str
    gradient_evaluations: float
    clean: float
    robust: float


@dataclass(frozen=True)
class Curve:
    """One trial during training. updates: ascending; clean, robust: shares of the held-out images, one for each."""

    label: str
    updates: Sequence[float]
    clean: Sequence[float]
    robust: Sequence[float]


def robustness_against_cost(costs: Sequence[Cost], attacked: str) -> Figure:
    """One point a trial, named: robust accuracy against gradient evaluations; hollow: clean accuracy.

    Trials of one name have one colour. attacked: the attacks and the ball, e.g. "PGD-20, Linf 0.1".
    """
    colours = _colours([cost.label for cost in costs])
    with house_style():
        figure, (axes,) = panels(1, 1, 6.4, 4.2)
        for cost in costs:
            colour = colours[cost.label]
            axes.plot(cost.gradient_evaluations, 100 * cost.robust, "o", color=colour, ms=6)
            axes.plot(cost.gradient_evaluations, 100 * cost.clean, "o", mfc="none", color=colour, ms=5, alpha=0.6)
        axes.set_xscale("log")
        axes.set_ylim(-3, 103)
        spent = [cost.gradient_evaluations for cost in costs]
        axes.set_xlim(min(spent) / 1.5, max(spent) * 2.6)  # room for the names on the right
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.xaxis.set_minor_formatter(FuncFormatter(_one_two_five))
        axes.set(xlabel="gradient evaluations (forward and backward passes of a batch)", ylabel="accuracy (%)")
        axes.set_title(f"filled: robust ({attacked}); hollow: clean")
        for x, named in _columns(costs).items():
            for (label, y), place in zip(named, spread([100 * y for _, y in named], 4.5), strict=True):
                axes.annotate(
                    label,
                    (x, 100 * y),
                    (x * 1.13, place),
                    va="center",
                    fontsize=8,
                    color=colours[label],
                    arrowprops={"arrowstyle": "-", "color": GREY, "lw": 0.5, "shrinkA": 1, "shrinkB": 4},
                )
    return figure


def accuracy_during_training(curves: Sequence[Curve]) -> Figure:
    """Clean and robust accuracy on images held out of training, against weight updates. One line a trial."""
    colours = _colours([curve.label for curve in curves])
    with house_style():
        figure, axes = panels(1, 2, sharey=True)
        for curve in curves:
            axes[0].plot(curve.updates, 100 * np.asarray(curve.clean), color=colours[curve.label], lw=1.4, marker=".")
            axes[1].plot(curve.updates, 100 * np.asarray(curve.robust), color=colours[curve.label], lw=1.4, marker=".")
        for each, title in zip(axes, ("clean", "robust"), strict=True):
            each.set(title=title, xlabel="weight updates", ylim=(-3, 103))
            each.set_xlim(left=0)
            each.xaxis.set_major_locator(MaxNLocator(5))
            each.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes[0].set_ylabel("accuracy on held-out images (%)")
        for label, colour in colours.items():
            axes[0].plot([], [], color=colour, lw=2, label=label)
        figure.legend(loc="outside lower center", ncols=min(len(colours), 6))
    return figure


def spread(places: Sequence[float], gap: float) -> list[float]:
    """Places for names, at least `gap` apart, as near to where they belong as their order allows.

    places: in any order; those that are too near to each other are laid out evenly around their mean.
    """
    order = sorted(range(len(places)), key=lambda index: places[index])
    groups = [[index] for index in order]

    def laid_out(group: list[int]) -> list[float]:
        middle = sum(places[index] for index in group) / len(group)
        return [middle + gap * (number - (len(group) - 1) / 2) for number in range(len(group))]

    number = 0
    while number + 1 < len(groups):
        if laid_out(groups[number + 1])[0] - laid_out(groups[number])[-1] < gap:
            groups[number : number + 2] = [groups[number] + groups[number + 1]]
            number = max(number - 1, 0)
        else:
            number += 1
    spread_out = [0.0] * len(places)
    for group in groups:
        for index, place in zip(group, laid_out(group), strict=True):
            spread_out[index] = place
    return spread_out


def _columns(costs: Sequence[Cost]) -> dict[float, list[tuple[str, float]]]:
    """Names and mean robust accuracies of what was equally costly."""
    trials: dict[tuple[float, str], list[float]] = defaultdict(list)
    for cost in costs:
        trials[cost.gradient_evaluations, cost.label].append(cost.robust)
    columns: dict[float, list[tuple[str, float]]] = defaultdict(list)
    for (spent, label), robust in trials.items():
        columns[spent].append((label, sum(robust) / len(robust)))
    return columns


def _colours(labels: Sequence[str]) -> dict[str, str]:
    distinct = dict.fromkeys(labels)
    return {label: PALETTE[number % len(PALETTE)] for number, label in enumerate(distinct)}


def _one_two_five(value: float, _: int | None) -> str:
    """Ticks of a logarithmic axis between the powers of ten: 2 and 5 alone."""
    first = f"{value:e}"[0]
    return f"{value:,.0f}" if first in "25" else ""
