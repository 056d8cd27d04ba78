"""What a run writes down of the curvature at a network."""

import math
from collections.abc import Sequence

import numpy as np

from jobs.common.curvature.density import SpectralDensity
from jobs.common.curvature.spectra import WHOLE, Spectra
from jobs.common.figures import spectra as figures
from service.run import Run, Trial


def metrics_of(spectra: Spectra) -> dict[str, float]:
    """Of the whole network, for `run.log`; what is not finite or failed is absent."""
    metrics: dict[str, float] = {}
    if WHOLE in spectra.traces:
        metrics |= {"trace": spectra.traces[WHOLE].value, "trace_error": spectra.traces[WHOLE].standard_error}
    if WHOLE in spectra.ends:
        ends = spectra.ends[WHOLE]
        metrics |= {"largest_eigenvalue": float(ends.largest[0]), "smallest_eigenvalue": float(ends.smallest[0])}
    if spectra.principal is not None:
        metrics["principal_curvature"] = spectra.principal
    if spectra.sharpness is not None:
        each = spectra.sharpness
        metrics |= {"worst_sharpness": each.worst, "average_sharpness": each.average}
    return metrics


def keep_spectra(spectra: Spectra, name: str, run: Run) -> None:
    """Eigenvalues, traces and densities as tables and figures. name: of the network."""
    run.table("spectra", _rows(spectra), title="Curvature by layer; the first row is the whole network")
    run.table("eigenvalues", _eigenvalues(spectra), title="The largest and smallest eigenvalues")
    run.table("spectral_density", _nodes(spectra), title="Nodes and weights of the spectral densities, by probe")
    if WHOLE in spectra.densities:
        named = {name: (spectra.densities[WHOLE], spectra.sizes[WHOLE])}
        run.figure("spectrum", figures.spectra(named), title="How the Hessian's eigenvalues are distributed")
    run.figure("layers", figures.layers(spectra), title="Curvature by layer")


def density_of(trial: Trial) -> tuple[SpectralDensity, int] | None:
    """The spectral density of a trial's network and its number of weights; None if it has none."""
    rows = [row for row in trial.table("spectral_density") if row["layer"] == WHOLE]
    if not rows:
        return None
    probes = 1 + max(row["probe"] for row in rows)
    nodes, weights = (np.array([row[name] for row in rows]).reshape(probes, -1) for name in ("node", "weight"))
    size = next(row["weights"] for row in trial.table("spectra") if row["layer"] == WHOLE)
    return SpectralDensity(nodes, weights), size


def summarize_spectra(trials: Sequence[Trial], run: Run) -> None:
    """The spectra of all trials that have one on one scale."""
    named = {trial.label: density for trial in trials if (density := density_of(trial)) is not None}
    if named:
        run.figure("spectra", figures.spectra(named), title="How the Hessians' eigenvalues are distributed")


def _rows(spectra: Spectra) -> list[dict[str, str | float]]:
    rows: list[dict[str, str | float]] = []
    for layer, size in spectra.sizes.items():
        trace, ends = spectra.traces.get(layer), spectra.ends.get(layer)
        rows.append(
            {
                "layer": layer,
                "weights": size,
                "trace": trace.value if trace else math.nan,
                "trace_error": trace.standard_error if trace else math.nan,
                "largest": float(ends.largest[0]) if ends else math.nan,
                "largest_residual": float(ends.largest_residuals[0]) if ends else math.nan,
                "smallest": float(ends.smallest[0]) if ends else math.nan,
                "smallest_residual": float(ends.smallest_residuals[0]) if ends else math.nan,
            }
        )
    return rows


def _eigenvalues(spectra: Spectra) -> list[dict[str, str | float]]:
    return [
        {"layer": layer, "end": end, "rank": rank, "eigenvalue": float(value), "residual": float(residual)}
        for layer, ends in spectra.ends.items()
        for end, values, residuals in (
            ("largest", ends.largest, ends.largest_residuals),
            ("smallest", ends.smallest, ends.smallest_residuals),
        )
        for rank, (value, residual) in enumerate(zip(values, residuals, strict=True), 1)
    ]


def _nodes(spectra: Spectra) -> list[dict[str, str | float]]:
    return [
        {"layer": layer, "probe": probe, "node": float(node), "weight": float(weight)}
        for layer, density in spectra.densities.items()
        for probe, (nodes, weights) in enumerate(zip(density.nodes, density.weights, strict=True))
        for node, weight in zip(nodes, weights, strict=True)
    ]
