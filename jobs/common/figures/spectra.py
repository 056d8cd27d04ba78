"""Pictures of the Hessian's eigenvalues: how they are distributed, and what each layer has of them."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from jobs.common.curvature.density import SpectralDensity
from jobs.common.curvature.spectra import WHOLE, Spectra
from jobs.common.figures.plots import GREY, PALETTE, house_style, ordered_colours, panels

POINTS = 600
WIDENED = 0.005  # standard deviation that a node is drawn with, of the width of the spectrum
LEAST = 1e-3  # of the largest magnitude: where the axis of eigenvalues is linear


def spectra(named: Mapping[str, tuple[SpectralDensity, int]]) -> Figure:
    """The spectral density of networks, and how many eigenvalues are beyond each magnitude, with 95 % intervals.

    named: by the network's name, its density and its number of weights. Of more networks than there are colours the
    intervals are left out, and colours go from the first to the last.
    """
    many = len(named) > len(PALETTE)
    colours = ordered_colours(len(named)) if many else PALETTE
    with house_style():
        figure, (left, right) = panels(1, 2, 4.8, 3.6)
        low, high = (pick(each.bounds[end] for each, _ in named.values()) for end, pick in ((0, min), (1, max)))
        width = (high - low) or abs(high) or 1.0
        at = np.linspace(low - 0.03 * width, high + 0.03 * width, POINTS)
        floor, most = np.inf, 0.0
        for (name, (density, size)), colour in zip(named.items(), colours, strict=False):
            band = density.smoothed(at, WIDENED * width)
            left.plot(at, band.mean, color=colour, lw=1.2, label=name)
            if not many:
                left.fill_between(at, band.low, band.high, color=colour, alpha=0.2, lw=0)
            floor, most = min(floor, 0.3 / size / width), max(most, band.mean.max())
            _draw_counts(right, density, size, colour, interval=not many)
        left.set(yscale="log", ylim=(floor, 3 * most), xlabel="eigenvalue", ylabel="density")
        right.plot([], [], color="black", label="above")
        right.plot([], [], color="black", ls=":", label="below the negative of it")
        right.set(xscale="log", yscale="log", ylim=(0.5, None), xlabel="magnitude", ylabel="eigenvalues beyond")
        right.legend()
        if len(named) > 1:
            figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def _draw_counts(axes: Axes, density: SpectralDensity, size: int, colour: str, interval: bool) -> None:
    largest = max(map(abs, density.bounds)) or 1.0
    at = np.geomspace(1e-6 * largest, 1.01 * largest, POINTS)
    above, below = density.cumulative(at), density.cumulative(-at)
    for mean, low, high, style in (
        (1 - above.mean, 1 - above.high, 1 - above.low, "-"),
        (below.mean, below.low, below.high, ":"),
    ):
        axes.plot(at, size * mean, color=colour, ls=style, lw=1.2)
        if interval:
            axes.fill_between(at, size * low, size * high, color=colour, alpha=0.15, lw=0)


def layers(spectra: Spectra) -> Figure:
    """By layer, from the input on: the trace with two standard errors, eigenvalues at both ends, and all the others.

    Only the trace, if there are no densities of layers.
    """
    names = [name for name in spectra.sizes if name != WHOLE]
    places, alone = np.arange(len(names)), not any(name in spectra.densities for name in names)
    with house_style():
        figure, (trace, *others) = panels(1, 1 if alone else 3, 3.9, max(2.4, 0.6 + 0.24 * len(names)), sharey=True)
        values = np.array([spectra.traces[each].value if each in spectra.traces else np.nan for each in names])
        errors = [spectra.traces[each].standard_error if each in spectra.traces else np.nan for each in names]
        trace.barh(places, values, xerr=2 * np.array(errors), color=PALETTE[0], ecolor=GREY, height=0.7)
        trace.set(title="trace", yticks=places, yticklabels=names)
        trace.invert_yaxis()
        if alone:
            return figure
        ends, density = others
        for name, place in zip(names, places, strict=True):
            if name in spectra.ends:
                ends.plot(spectra.ends[name].largest, [place] * len(spectra.ends[name].largest), "|", color=PALETTE[1])
                ends.plot(
                    spectra.ends[name].smallest, [place] * len(spectra.ends[name].smallest), "|", color=PALETTE[0]
                )
        known = [spectra.densities[name] for name in names if name in spectra.densities]
        largest = max((abs(bound) for each in known for bound in each.bounds), default=1.0) or 1.0
        smallest = min((each.bounds[0] for each in known), default=0.0)
        decades = 10.0 ** np.arange(np.ceil(np.log10(3 * LEAST * largest)), np.log10(1.5 * largest))
        for axes in (ends, density):
            axes.set_xscale("symlog", linthresh=LEAST * largest)
            axes.set(xticks=[*-decades[::-1], 0, *decades], xlim=(1.2 * min(smallest, -LEAST * largest), 1.2 * largest))
        ends.axvline(0, color=GREY, lw=0.6)
        ends.set(title="largest and smallest eigenvalues", xlabel="eigenvalue")
        edges = _edges(largest)
        shares = np.full((len(names), len(edges) - 1), np.nan)
        for name, place in zip(names, places, strict=True):
            if name in spectra.densities:
                shares[place] = np.diff(spectra.densities[name].cumulative(edges).mean)
        drawn = density.pcolormesh(
            edges, np.arange(len(names) + 1) - 0.5, shares, norm=LogNorm(1e-4, 1), cmap="viridis"
        )
        density.set(title="share of a layer's eigenvalues", xlabel="eigenvalue")
        density.grid(False)
        figure.colorbar(drawn, ax=density, extend="min", shrink=0.8)
    return figure


def _edges(largest: float) -> np.ndarray:
    """Bounds of bins that are equally wide on the axis: linear around 0, logarithmic beyond. (61,)"""
    beyond = np.geomspace(LEAST, 1.05, 26) * largest
    middle = np.linspace(-LEAST * largest, LEAST * largest, 11)[1:-1]
    return np.concatenate([-beyond[::-1], middle, beyond])
