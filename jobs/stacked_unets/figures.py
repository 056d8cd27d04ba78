"""The pictures of the study: what was segmented and how well, and what each u-net of a stack adds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from jobs.common.data.masks.base import Colour
from jobs.common.figures.plots import GREY, PALETTE, house_style, panels
from jobs.common.metrics.segmentation import IGNORE

WRONG, RIGHT, UNCOUNTED = (213, 60, 40), (225, 225, 225), (255, 255, 255)
MOST_NAMED = 24  # classes in a legend


@dataclass(frozen=True)
class Segmented:
    """An image uint8 (height, width, 3), its true labels and those predicted, uint8 (height, width)."""

    image: np.ndarray
    truth: np.ndarray
    predicted: np.ndarray


@dataclass(frozen=True)
class Addition:
    """What a u-net does for one image: the gain of the true class's probability, float (height, width) in [-1, 1]; and
    for all of them: what its absence costs, in points of mean IoU.
    """

    name: str
    gain: np.ndarray
    cost: float


def painted(labels: np.ndarray, palette: Sequence[Colour]) -> np.ndarray:
    """A map of labels in the colours of its classes, white where a pixel does not count: uint8 (height, width, 3)."""
    colours = np.full((256, 3), UNCOUNTED, np.uint8)
    colours[: len(palette)] = palette
    picture: np.ndarray = colours[labels]
    return picture


def error_map(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Red where a prediction is wrong, grey where it is right, white where a pixel does not count."""
    wrong = (truth != predicted).astype(int)
    picture: np.ndarray = np.array([RIGHT, WRONG, UNCOUNTED], np.uint8)[np.where(truth == IGNORE, 2, wrong)]
    return picture


def side_by_side(shown: Sequence[Segmented], classes: Sequence[str], palette: Sequence[Colour]) -> Figure:
    """A row for each image: the image, its truth, the prediction, and where the two differ."""
    with house_style():
        figure, axes = panels(len(shown), 4, 1.9, 1.9)
        for row, each in enumerate(shown):
            counted = each.truth != IGNORE
            right = (each.truth == each.predicted)[counted].mean() if counted.any() else np.nan
            pictures = (
                each.image,
                painted(each.truth, palette),
                painted(each.predicted, palette),
                error_map(each.truth, each.predicted),
            )
            for column, picture in enumerate(pictures):
                _show(axes[4 * row + column], picture)
            axes[4 * row + 3].set_xlabel(f"{100 * right:.1f} % right", fontsize=8)
        for place, title in zip(axes, ("image", "truth", "prediction", "errors"), strict=False):
            place.set_title(title)
        named = [label for label in range(len(classes)) if any((each.truth == label).any() for each in shown)]
        named += [label for label in range(len(classes)) if label not in named and _predicted(shown, label)]
        patches = [_patch(palette[label], classes[label]) for label in sorted(named)[:MOST_NAMED]]
        patches += [_patch(WRONG, "wrong")]
        figure.legend(handles=patches, loc="outside lower center", ncols=min(len(patches), 6))
    return figure


def iou_bars(iou: Mapping[str, Mapping[str, float | None]]) -> Figure:
    """Intersection over union of each class, one bar a network; a class that the truth has not is said to be absent.

    iou: by network, by class: shares in [0, 1].
    """
    networks, classes = list(iou), list(dict.fromkeys(name for each in iou.values() for name in each))
    thick = 0.8 / len(networks)
    with house_style():
        figure, (axes,) = panels(1, 1, 6.4, 1.2 + 0.3 * len(classes) * max(len(networks), 2) / 1.6)
        for number, network in enumerate(networks):
            for row, name in enumerate(classes):
                value, place = iou[network].get(name), row + (number - (len(networks) - 1) / 2) * thick
                axes.barh(place, 100 * (value or 0), 0.9 * thick, color=PALETTE[number % len(PALETTE)])
                text = "absent" if value is None else f"{100 * value:.1f}"
                axes.text(100 * (value or 0) + 1, place, text, va="center", fontsize=7.5, color="#444444")
            axes.barh(0, 0, color=PALETTE[number % len(PALETTE)], label=network)
        axes.set_yticks(range(len(classes)), classes)
        axes.set(xlim=(0, 108), xlabel="intersection over union (%)")
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        if len(networks) > 1:
            figure.legend(loc="outside lower center", ncols=min(len(networks), 4))
    return figure


def stack(shown: Segmented, palette: Sequence[Colour], additions: Sequence[Addition]) -> Figure:
    """Where each u-net raises (blue) and lowers (red) the probability of the truth; and what leaving it out costs."""
    columns = min(len(additions) + 2, 5)
    with house_style():
        figure, axes = panels(-(-(len(additions) + 2) // columns), columns, 1.9, 2.3)
        _show(axes[0], shown.image, "image")
        _show(axes[1], painted(shown.predicted, palette), "prediction")
        for place, each in zip(axes[2:], additions, strict=False):
            drawn = place.imshow(each.gain, cmap="RdBu", vmin=-1, vmax=1)
            _bare(place, f"u-net {each.name}")
            change = "no change" if abs(each.cost) < 0.05 else f"{-each.cost:+.1f} points"
            place.set_xlabel(f"left out: {change}", fontsize=8)
        for place in axes[len(additions) + 2 :]:
            place.set_axis_off()
        bar = figure.colorbar(drawn, ax=axes, shrink=0.5, aspect=30, pad=0.02)
        bar.set_label("gain of the true class's probability", fontsize=8)
        bar.outline.set_visible(False)
    return figure


def training_curves(curves: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> Figure:
    """Mean IoU on images held out of training, against weight updates. curves: updates and shares, by network."""
    with house_style():
        figure, (axes,) = panels(1, 1, 5.2, 3.4)
        for number, (name, (updates, iou)) in enumerate(curves.items()):
            colour = PALETTE[number % len(PALETTE)]
            axes.plot(updates, 100 * np.asarray(iou), color=colour, lw=1.5, marker=".", label=name)
        axes.set(xlabel="weight updates", ylabel="mean IoU on held-out images (%)")
        axes.set_ylim(0, 102)
        axes.set_xlim(left=0)
        figure.legend(loc="outside lower center", ncols=min(len(curves), 4))
    return figure


def _predicted(shown: Sequence[Segmented], label: int) -> bool:
    return any((each.predicted == label).any() for each in shown)


def _patch(colour: Colour, name: str) -> Patch:
    red, green, blue = (part / 255 for part in colour)
    return Patch(facecolor=(red, green, blue), edgecolor=GREY, linewidth=0.5, label=name)


def _show(axes: Axes, picture: np.ndarray, title: str = "") -> None:
    axes.imshow(picture, interpolation="nearest")
    _bare(axes, title)


def _bare(axes: Axes, title: str) -> None:
    axes.set_title(title)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)
    for side in axes.spines.values():
        side.set_visible(False)
