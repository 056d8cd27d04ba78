"""The curvature at a network as cells: against its whole Hessian, killed and resumed, and not finite."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from jobs.common.curvature.results import keep_spectra, metrics_of
from jobs.common.curvature.spectra import WHOLE, Site, Spectra, compute_spectra
from jobs.common.curvature.spectra_params import SpectraParams
from service.planning.validation import validate
from service.run import Run
from tests.jobs.common.curvature.made import small_network, written_out

FEW = {"top": 2, "tolerance": 1e-6, "trace_probes": 12, "density_probes": 2, "density_steps": 12}


def params(**changes: Any) -> SpectraParams:
    return validate(SpectraParams, {**FEW, "sharpness": {"steps": 4, "samples": 12}, **changes}, "spectra")


def tables(handle: Run) -> dict[str, list[dict[str, Any]]]:
    return {
        name: handle.folder.read_table(f"tables/{name}.parquet").to_pylist()
        for name in ("spectra", "eigenvalues", "spectral_density")
    }


def test_spectra_are_those_of_the_hessian_of_each_layer_and_of_all(make_run) -> None:
    handle = make_run()
    network, images, labels = small_network()
    spectra = compute_spectra(Site(network, images, labels), params(images=40, trace_probes=60), handle)
    keep_spectra(spectra, "small", handle)
    for layer, names in {WHOLE: ["0.weight", "4.weight"], "0": ["0.weight"], "4": ["4.weight"]}.items():
        matrix = written_out(network, images[:40], labels[:40], names)
        values = np.linalg.eigvalsh(matrix)
        assert spectra.sizes[layer] == len(values)
        np.testing.assert_allclose(spectra.ends[layer].largest, values[::-1][:2], rtol=1e-4)
        np.testing.assert_allclose(spectra.ends[layer].smallest, values[:1], rtol=1e-4, atol=1e-9)
        trace = spectra.traces[layer]
        assert abs(trace.value - values.sum()) < 3.5 * trace.standard_error
        assert spectra.densities[layer].nodes.shape == (2, 12)
        low, high = spectra.densities[layer].bounds
        assert values[0] - 1e-9 <= low < high <= values[-1] + 1e-9
    metrics = metrics_of(spectra)
    assert metrics["largest_eigenvalue"] == spectra.ends[WHOLE].largest[0]
    assert metrics["average_sharpness"] > 0 and 0 < metrics["worst_sharpness"] < np.inf
    rows = tables(handle)
    assert [row["layer"] for row in rows["spectra"]] == ["", "0", "4"]
    assert len(rows["spectral_density"]) == 3 * 2 * 12
    assert handle.folder.exists("figures/spectrum.png") and handle.folder.exists("figures/layers.png")


def test_curvature_in_coordinates_of_filters_is_principal(make_run) -> None:
    network, images, labels = small_network()
    asked = params(coordinates="filter", layers=False, sharpness=None)
    spectra = compute_spectra(Site(network, images, labels), asked, make_run())
    assert spectra.principal == pytest.approx(spectra.ends[WHOLE].largest[0], rel=1e-4)
    assert list(spectra.ends) == list(spectra.densities) == [WHOLE] and list(spectra.traces) == [WHOLE, "0", "4"]
    assert spectra.sharpness is None


class Interrupted(Run):
    """Dies in the middle of the cells of the name that is given."""

    name: str

    def map(self, fn: Any, cells: Any, shared: Any = None, name: str | None = None) -> list[Any]:
        if name == self.name:
            super().map(fn, cells[: len(cells) // 2], shared, name)
            raise KeyboardInterrupt
        return super().map(fn, cells, shared, name)


def numbers(spectra: Spectra) -> list[np.ndarray]:
    """All that was computed."""
    parts = [part for ends in spectra.ends.values() for part in (ends.largest, ends.smallest, ends.largest_residuals)]
    parts += [part for density in spectra.densities.values() for part in (density.nodes, density.weights)]
    parts += [np.array([trace.value, trace.standard_error]) for trace in spectra.traces.values()]
    return [*parts, np.array(list(metrics_of(spectra).values()))]


def test_killed_and_resumed_is_the_same_as_undisturbed(make_run) -> None:
    """In the middle of the cells of each kind."""
    site = Site(*small_network())
    asked = params(top=1, tolerance=0.1, density_steps=3, sharpness={"steps": 2, "samples": 12, "restarts": 1})
    expected = numbers(compute_spectra(site, asked, make_run("undisturbed")))
    assert len(expected) == 3 * (3 + 2 + 1) + 1, "eigenvalues, density and trace of two layers and of the whole"
    for name in ("eigenvalues", "trace", "density", "sharpness"):
        killed = make_run(name, kind=Interrupted)
        killed.name = name
        with pytest.raises(KeyboardInterrupt):
            compute_spectra(site, asked, killed)
        resumed = numbers(compute_spectra(site, asked, make_run(name)))
        assert all(np.array_equal(one, other) for one, other in zip(resumed, expected, strict=True)), name


def test_where_the_loss_is_not_finite_nothing_is_made_up(make_run) -> None:
    network, images, labels = small_network()
    network = nn.Sequential(*network, Logarithm())
    handle = make_run()
    spectra = compute_spectra(Site(network, images, labels), params(), handle)
    keep_spectra(spectra, "broken", handle)
    assert not spectra.ends and not spectra.traces and not spectra.densities and spectra.principal is None
    assert not np.isfinite(spectra.sharpness.worst) and not np.isfinite(spectra.sharpness.average)
    assert not handle.folder.exists("figures/spectrum.png")


class Logarithm(nn.Module):
    """Answers with NaN."""

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        return (-logits.square() - 1).log()
