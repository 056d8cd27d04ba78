"""One look for all figures: sizes, type, a palette that colour-blind readers can tell apart.

Figures are made without pyplot: they belong to nobody but their maker, so jobs may draw in any thread.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.figure import Figure

# Okabe & Ito (2008), without the yellow, which vanishes on white
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
GREY = "#8a8a8a"
BAND = "#ececec"

STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.prop_cycle": cycler(color=PALETTE),
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "figure.dpi": 144,
}


@contextmanager
def house_style() -> Iterator[None]:
    """Everything drawn inside has the house's look; what others draw is left alone."""
    with matplotlib.rc_context(STYLE):
        yield


def panels(
    rows: int, columns: int, width: float = 4.4, height: float = 3.2, **options: Any
) -> tuple[Figure, list[Axes]]:
    """A figure and its axes, row by row. width, height: of one panel, in inches. Call it in `house_style`."""
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    return figure, list(axes.flat)


def ordered_colours(count: int) -> list[str]:
    """Colours for things that have an order, such as sizes: from light blue to near black."""
    scale: Colormap = LinearSegmentedColormap.from_list(
        "sizes", ["#8ecae6", "#2a9d8f", "#e9a23b", "#d1495b", "#3d1a4f"]
    )
    return [matplotlib.colors.to_hex(scale(index / max(count - 1, 1))) for index in range(count)]


def training_band(axes: Axes, trained: float, label: str = "") -> None:
    """A grey band over the range seen in training: [0, trained] on the x axis."""
    axes.axvspan(0, trained, color=BAND, zorder=0, label=label or None)
