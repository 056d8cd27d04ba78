"""The pictures of the study: decision boundaries, accuracy against the share of poison.

Source of the kinds: Huang et al. 2020, figures 3 and 5 to 7.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from jobs.common.figures.plots import GREY, PALETTE, house_style, panels
from jobs.common.metrics.correlation import Association

WRONG = "#000000"
MOST_COLUMNS, MOST_PANELS = 4, 12


@dataclass(frozen=True)
class Boundary:
    """What a network says of the plane.

    axis: float64 (steps,) coordinates. probabilities: (classes, steps, steps) of each class, (y, x). points: rows with
    set, x, y, label, predicted.
    """

    title: str
    axis: np.ndarray
    probabilities: np.ndarray
    points: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Sample:
    """A network that has been trained: share of poison, accuracies in [0, 1], whether it fits its training images."""

    share: float
    training: float
    test: float
    fitted: bool


def boundaries(maps: Sequence[Boundary]) -> Figure:
    """A panel a network: the plane in the colours of the classes, training points, crosses at wrong test points."""
    columns = min(MOST_COLUMNS, len(maps))
    rows = -(-len(maps) // columns)
    with house_style():
        figure, axes = panels(rows, columns, 3.4, 3.5)
        for each in axes[len(maps) :]:
            each.set_visible(False)
        for each, shown in zip(axes, maps, strict=False):
            draw_boundary(each, shown)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure


def draw_boundary(axes: Axes, shown: Boundary) -> None:
    """One map. Colours are paler where the network is less sure."""
    low, high = float(shown.axis[0]), float(shown.axis[-1])
    if len(shown.probabilities) == 2:
        axes.imshow(
            shown.probabilities[1], extent=(low, high, low, high), origin="lower", cmap="RdBu", vmin=-0.3, vmax=1.3
        )
        axes.contour(shown.axis, shown.axis, shown.probabilities[1], levels=[0.5], colors="black", linewidths=0.6)
    else:
        colours = ListedColormap([PALETTE[index % len(PALETTE)] for index in range(len(shown.probabilities))])
        axes.imshow(
            shown.probabilities.argmax(0), extent=(low, high, low, high), origin="lower", cmap=colours, alpha=0.35
        )
    two = len(shown.probabilities) == 2
    for label in range(len(shown.probabilities)):
        colour = ("#8c1a1a", "#123f7a")[label] if two else PALETTE[label % len(PALETTE)]
        points = _chosen(shown, "training", lambda row, label=label: row["label"] == label)
        axes.plot(*points, ".", color=colour, ms=3.5, label=f"training, class {label}")
    wrong = _chosen(shown, "test", lambda row: row["label"] != row["predicted"])
    axes.plot(*wrong, "x", color=WRONG, ms=3, mew=0.7, label="test, wrong")
    tested = [row for row in shown.points if row["set"] == "test"]
    right = 100 * sum(row["label"] == row["predicted"] for row in tested) / max(len(tested), 1)
    axes.set_title(f"{shown.title}: {right:.0f} % of test right", fontsize=8)
    axes.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    axes.grid(visible=False)


def _chosen(shown: Boundary, of_set: str, choose: Any) -> tuple[list[float], list[float]]:
    rows = [row for row in shown.points if row["set"] == of_set and choose(row)]
    return [row["x"] for row in rows], [row["y"] for row in rows]


def shares(samples: Sequence[Sample]) -> Figure:
    """Accuracy against the share of poison: a dot a network, a line through the means, a band from lowest to highest.

    Open dots do not fit their training images.
    """
    levels = sorted({sample.share for sample in samples})
    with house_style():
        figure, (axes,) = panels(1, 1, 5.4, 3.6)
        for name, colour in (("training", PALETTE[0]), ("test", PALETTE[1])):
            groups = [[100 * getattr(each, name) for each in samples if each.share == level] for level in levels]
            axes.plot(levels, [np.mean(group) for group in groups], color=colour, label=name)
            lowest, highest = [min(group) for group in groups], [max(group) for group in groups]
            axes.fill_between(levels, lowest, highest, color=colour, alpha=0.15, lw=0)
            for fitted in (True, False):
                some = [each for each in samples if each.fitted == fitted]
                axes.plot(
                    [each.share for each in some],
                    [100 * getattr(each, name) for each in some],
                    "o",
                    color=colour,
                    mfc=colour if fitted else "white",
                    ms=4,
                )
        positive = [level for level in levels if level > 0]
        if positive and max(positive) / min(positive) > 20:
            axes.set_xscale("symlog", linthresh=min(positive))
        axes.set(xlabel="share of poison in the objective", ylabel="accuracy (%)", ylim=(-3, 103))
        axes.plot([], [], "o", color="black", mfc="white", ms=4, ls="", label="does not fit its training images")
        figure.legend(loc="outside lower center", ncols=3)
    return figure


def correlations(associations: Mapping[str, Association]) -> Figure:
    """Kendall's tau of each measure with the gap, and its 95 % interval."""
    places = np.arange(len(associations))
    with house_style():
        figure, (axes,) = panels(1, 1, 6.4, 0.9 + 0.32 * len(associations))
        for place, each in zip(places, associations.values(), strict=True):
            colour = PALETTE[0] if each.kendall.excludes_zero else GREY
            axes.plot([each.kendall.low, each.kendall.high], [place, place], color=colour, lw=2)
            axes.plot(each.kendall.value, place, "o", color=colour, ms=5)
        axes.axvline(0, color=GREY, lw=0.8)
        labels = [f"{name.replace('_', ' ')} ({each.trials})" for name, each in associations.items()]
        axes.set(xlim=(-1.03, 1.03), yticks=places, yticklabels=labels, xlabel="Kendall's tau with the gap")
        axes.invert_yaxis()
    return figure


def measures(values: Mapping[str, np.ndarray], gap: np.ndarray) -> Figure:
    """Each measure against the gap: a panel a measure, a dot a network."""
    columns = min(MOST_COLUMNS, len(values))
    rows = -(-len(values) // columns)
    with house_style():
        figure, axes = panels(rows, columns, 2.7, 2.4, sharey=True)
        for each in axes[len(values) :]:
            each.set_visible(False)
        for each, (name, measured) in zip(axes, values.items(), strict=False):
            each.plot(measured, 100 * gap, "o", color=PALETTE[0], ms=4, alpha=0.8)
            known = measured[np.isfinite(measured)]
            if len(known) and known.min() > 0 and known.max() > 20 * known.min():
                each.set_xscale("log")
            each.set(xlabel=name.replace("_", " "))
        for each in axes[::columns]:
            each.set_ylabel("gap (%)")
    return figure


def minefield(rows: Sequence[Mapping[str, Any]], explained: float) -> Figure:
    """The map of networks, and how accurate each is: states of a good training, and what each was made into.

    rows: of `Minefield.rows`, in the order of training. explained: share of variance that the map is made of.
    Source: Huang et al. 2020, figure 1.
    """
    epochs = [row["epoch"] for row in rows]
    with house_style():
        figure, (plane, accuracies) = panels(1, 2, 5.2, 4.4)
        path = np.array([(row["start_x"], row["start_y"]) for row in rows])
        plane.plot(*path.T, "-", color=GREY, lw=0.6)
        good = plane.scatter(path[:, 0], path[:, 1], c=epochs, cmap="viridis", s=16, label="states of a good training")
        for fitted, mark in ((True, "X"), (False, "x")):
            some = [row for row in rows if row["fitted"] == fitted]
            if some:
                bad = plane.scatter(
                    [row["x"] for row in some],
                    [row["y"] for row in some],
                    c=[100 * row["test"] for row in some],
                    cmap="autumn",
                    vmin=0,
                    vmax=100,
                    marker=mark,
                    s=30,
                    linewidths=0.6 if fitted else 1.2,
                    edgecolors="black" if fitted else None,
                    label="bad minima" if fitted else "no fit of the training points",
                )
        plane.plot(*path[-1], "*", color=PALETTE[3], ms=14, mec="black", label="the end of the good training")
        plane.set(title=f"weights by t-SNE, of axes with {explained:.0%} of the variance", xticks=[], yticks=[])
        plane.legend(loc="upper center", bbox_to_anchor=(0.5, -0.01), ncols=2, fontsize=7)
        figure.colorbar(good, ax=plane, label="epoch", location="left", shrink=0.7)
        figure.colorbar(bad, ax=plane, label="test accuracy of what was trained with poison (%)", shrink=0.7)
        for name, label, colour, style in (
            ("start_training", "good: training", PALETTE[0], ":"),
            ("start_test", "good: test", PALETTE[0], "-"),
            ("training", "bad: training", PALETTE[1], ":"),
            ("test", "bad: test", PALETTE[1], "-"),
        ):
            accuracies.plot(epochs, [100 * row[name] for row in rows], style, color=colour, label=label)
        accuracies.set(xlabel="epoch of the good training", ylabel="accuracy (%)", ylim=(-3, 103))
        accuracies.legend()
    return figure


def margins(distances: Mapping[str, np.ndarray]) -> Figure:
    """How many training points are at least so far from the boundary, a line a network. distances: those that end."""
    with house_style():
        figure, (axes,) = panels(1, 1, 5.0, 3.4)
        for label, each in distances.items():
            finite = np.sort(each[np.isfinite(each)])
            share = 100 * (1 - np.arange(len(finite)) / max(len(each), 1))
            axes.step(finite, share, where="pre", label=f"{label}: median {np.median(each):.3g}")
        axes.set(xscale="log", xlabel="distance to the boundary", ylabel="training points at least as far (%)")
        axes.set(ylim=(-3, 103))
        axes.legend()
    return figure


@dataclass(frozen=True)
class Group:
    """Networks that were made in the same way. training, test: an accuracy in [0, 1] of each. fitted: of each."""

    label: str
    training: Sequence[float]
    test: Sequence[float]
    fitted: Sequence[bool]


def accuracies(groups: Sequence[Group]) -> Figure:
    """A row a group: its mean accuracies, and a small dot for each network; open where it fits not all of training.

    Source: Huang et al. 2020, figure 2 and table 1.
    """
    with house_style():
        figure, (axes,) = panels(1, 1, 6.4, 1.2 + 0.34 * len(groups))
        places = np.arange(len(groups))[::-1]
        for shift, name, colour in ((0.12, "training", PALETTE[0]), (-0.12, "test", PALETTE[1])):
            for place, group in zip(places, groups, strict=True):
                values = [100 * each for each in getattr(group, name)]
                axes.plot([0, float(np.mean(values))], [place + shift] * 2, color=colour, lw=4, alpha=0.35)
                for value, fitted in zip(values, group.fitted, strict=True):
                    axes.plot(value, place + shift, "o", color=colour, mfc=colour if fitted else "white", ms=4)
            axes.plot([], [], color=colour, lw=4, alpha=0.5, label=name)
        axes.plot([], [], "o", color="black", mfc="white", ms=4, ls="", label="does not fit its training images")
        axes.set_yticks(places, [group.label for group in groups])
        axes.set(xlabel="accuracy (%)", xlim=(0, 103))
        figure.legend(loc="outside lower center", ncols=3)
    return figure


def wiggle_frames(
    rows: Sequence[Mapping[str, float]], axis: np.ndarray, maps: np.ndarray, points: Sequence[Mapping[str, Any]]
) -> list[np.ndarray]:
    """A frame a place: the boundary, and loss, accuracy and curvature up to here. uint8 (height, width, 3) each.

    rows: of `Wiggle.rows`. maps: (places, classes, steps, steps). points: rows with set, x, y, label, predicted.
    """
    names = (("loss", "cross entropy"), ("accuracy", "training accuracy"), ("curvature", "largest curvature"))
    places = [row["places"] for row in rows]
    frames = []
    with house_style():
        for row, probabilities in zip(rows, maps, strict=True):
            figure = Figure(figsize=(7.6, 4.4), dpi=70, layout="constrained")
            canvas: Any = FigureCanvasAgg(figure)  # has no types
            grid = figure.add_gridspec(3, 2, width_ratios=(1.7, 1))
            plane = figure.add_subplot(grid[:, 0])
            draw_boundary(plane, Boundary("", axis, probabilities, points))
            plane.set_title(f"{row['places']:+.3f} along the direction", fontsize=9)
            for place, (name, label) in enumerate(names):
                side = figure.add_subplot(grid[place, 1])
                side.plot(places, [each[name] for each in rows], color=PALETTE[0], lw=1)
                side.plot(row["places"], row[name], "o", color=PALETTE[1], ms=5)
                if name == "accuracy":
                    side.set(ylim=(-0.03, 1.03))
                else:
                    side.set_yscale("symlog", linthresh=1e-2 if name == "loss" else 1.0)
                side.set_title(label, fontsize=8)
                side.tick_params(labelsize=6)
            canvas.draw()
            frames.append(np.asarray(canvas.buffer_rgba())[..., :3].copy())
    return frames
