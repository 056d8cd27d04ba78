"""The pictures of the study: accuracy against iterations, and instances being solved thought by thought."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from jobs.common.figures.plots import BAND, house_style, ordered_colours, panels, training_band

FRAME = 360  # the longer side of a frame of an animation, in pixels
CAPTION = 26  # height of the line of text under it


@dataclass(frozen=True)
class Line:
    """Accuracy of one trial on one size. accuracy: (iterations,), shares in [0, 1]; bold: the trial that was chosen."""

    size: int
    accuracy: Sequence[float]
    bold: bool = True


@dataclass(frozen=True)
class Panel:
    """One network, or several trials of one variant, trained with at most `trained_iterations`."""

    title: str
    trained_iterations: int
    lines: list[Line]


def accuracy_against_iterations(variants: Sequence[Panel], trained_size: int, unit: str) -> Figure:
    """One panel a variant, one colour a size, a grey band over the iterations of training.

    The chosen trial is bold, the others thin. unit: what sizes count, e.g. "bits".
    Source: Bansal et al. 2022, figures 4 and 5.
    """
    sizes = sorted({line.size for panel in variants for line in panel.lines})
    colours = dict(zip(sizes, ordered_colours(len(sizes)), strict=True))
    columns = min(len(variants), 3)
    with house_style():
        figure, axes = panels(-(-len(variants) // columns), columns, sharex=True, sharey=True)
        for each, panel in zip(axes, variants, strict=False):
            training_band(each, panel.trained_iterations)
            for line in panel.lines:
                iterations = np.arange(1, len(line.accuracy) + 1)
                width, strength = (2.0, 1.0) if line.bold else (0.7, 0.45)
                each.plot(
                    iterations, 100 * np.asarray(line.accuracy), color=colours[line.size], lw=width, alpha=strength
                )
            each.set(title=panel.title, ylim=(-3, 103), xlabel="iterations of thought")
            each.set_xlim(left=0)
        for unused in axes[len(variants) :]:
            unused.set_axis_off()
        axes[0].set_ylabel("exactly right (%)")
        for size, colour in colours.items():
            label = f"{size} {unit}" + (" (trained on)" if size == trained_size else "")
            axes[0].plot([], [], color=colour, lw=2, label=label)
        axes[0].fill_between([], [], color=BAND, label="iterations in training")
        figure.legend(loc="outside lower center", ncols=min(len(sizes) + 1, 4))
    return figure


def strip(pictures: Sequence[np.ndarray], titles: Sequence[str]) -> Figure:
    """Pictures of the same instance side by side; one below the other if they are wide.

    pictures: uint8 (height, width, 3), all of the same shape.
    """
    height, width = pictures[0].shape[:2]
    wide = width > 3 * height
    rows, columns = (len(pictures), 1) if wide else (1, len(pictures))
    with house_style():
        figure, axes = panels(rows, columns, *((7.0, 0.5) if wide else (2.0, 2.0 * height / width + 0.25)))
        for each, picture, title in zip(axes, pictures, titles, strict=True):
            each.imshow(picture, interpolation="nearest")
            each.set(xticks=[], yticks=[])
            each.grid(visible=False)
            for side in each.spines.values():
                side.set_visible(False)
            if wide:
                each.set_ylabel(title, rotation=0, ha="right", va="center")
            else:
                each.set_title(title)
    return figure


def frame(picture: np.ndarray, caption: str) -> np.ndarray:
    """One frame of an animation: the picture enlarged by a whole number, with a line of text below.

    picture: uint8 (height, width, 3). Returns uint8 (taller, wider, 3).
    """
    times = max(1, FRAME // max(picture.shape[:2]))
    large = picture.repeat(times, axis=0).repeat(times, axis=1)
    canvas = Image.new("RGB", (large.shape[1], large.shape[0] + CAPTION), "white")
    canvas.paste(Image.fromarray(large))
    font = ImageFont.load_default(size=14)
    ImageDraw.Draw(canvas).text((6, large.shape[0] + CAPTION / 2), caption, fill="black", font=font, anchor="lm")
    return np.asarray(canvas)


def spread(values: Sequence[int], count: int) -> list[int]:
    """At most `count` of the values, evenly spread, the first and the last among them."""
    places = np.linspace(0, len(values) - 1, min(count, len(values))).round().astype(int)
    return [values[place] for place in places]
