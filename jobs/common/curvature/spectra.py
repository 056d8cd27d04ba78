"""The curvature of the loss at a network, as cells: a few random vectors, or one layer, each."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from jobs.common.curvature.coordinates import Coordinates, Scaled, scale_of
from jobs.common.curvature.density import SpectralDensity
from jobs.common.curvature.eigenvalues import Ends, ends
from jobs.common.curvature.hessian import Hessian
from jobs.common.curvature.lanczos import lanczos
from jobs.common.curvature.mean_loss import MeanLoss, layer_of
from jobs.common.curvature.probes import rademacher
from jobs.common.curvature.sharpness import average_case, worst_case
from jobs.common.curvature.spectra_params import SharpnessParams, SpectraParams
from jobs.common.curvature.trace import TraceEstimate, estimates, shares
from jobs.common.mean_loss.losses import Loss, cross_entropy
from service.run import Run, reserved_device

Function = TypeVar("Function", bound=MeanLoss)

WHOLE = ""
"""all layers together, where the name of a layer is asked for"""
GROUP = 10  # probes of a cell for the trace, which have the first derivative in common
PAIR = 2  # of one for a density: each of them takes many products, one after another


@dataclass(frozen=True)
class Site:
    """A network and the images that its loss is the mean over: what all cells share."""

    network: nn.Module
    images: Tensor
    """as the network takes them, (count, ...)"""
    labels: Tensor
    loss: Loss = cross_entropy

    def hessian(self, layer: str = WHOLE) -> Hessian:
        """By the weights of more than one dimension, of a layer or of all."""
        parameters = self.network.named_parameters()
        names = [name for name, each in parameters if each.dim() > 1 and layer in (WHOLE, layer_of(name))]
        return self._on_device(Hessian, names)

    def mean_loss(self) -> MeanLoss:
        """As a function of all parameters, also biases."""
        return self._on_device(MeanLoss, [name for name, _ in self.network.named_parameters()])

    def _on_device(self, kind: type[Function], names: Sequence[str]) -> Function:
        device = reserved_device()
        network, images, labels = self.network.to(device), self.images.to(device), self.labels.to(device)
        return kind(network, images, labels, names=names, loss=self.loss)


def matrix_at(site: Site, coordinates: Coordinates, layer: str = WHOLE) -> Hessian | Scaled:
    """The Hessian in some coordinates."""
    hessian = site.hessian(layer)
    return hessian if coordinates == "weights" else Scaled(hessian, scale_of(hessian.weights, coordinates))


def ends_of(cell: dict[str, Any], site: Site) -> dict[str, Any]:
    """A cell: eigenvalues at both ends. cell: layer, coordinates, top, bottom, tolerance, seed. Empty: not finite."""
    matrix = matrix_at(site, cell["coordinates"], cell["layer"])
    try:
        result = ends(matrix, cell["top"], cell["bottom"], seed=cell["seed"], tolerance=cell["tolerance"])
    except FloatingPointError:
        return {}
    return vars(result)


def trace_shares(cell: dict[str, Any], site: Site) -> np.ndarray:
    """A cell: what each probe says of the trace of each layer, float64 (probes, layers). cell: coordinates, seeds."""
    matrix = matrix_at(site, cell["coordinates"])
    vectors = rademacher(matrix.size, cell["seeds"], matrix.device)
    result: np.ndarray = shares(matrix, vectors, site.hessian().layers).cpu().numpy()
    return result


def quadrature_of(cell: dict[str, Any], site: Site) -> dict[str, Any]:
    """A cell: nodes and weights, (probes, steps) each. cell: layer, coordinates, seeds, steps. Empty: not finite."""
    matrix = matrix_at(site, cell["coordinates"], cell["layer"])
    starts = rademacher(matrix.size, cell["seeds"], matrix.device)
    try:
        rule = lanczos(matrix, starts, cell["steps"])
    except FloatingPointError:
        return {}
    return {"nodes": rule.nodes.numpy(), "weights": rule.weights.numpy()}


def rise_of(cell: dict[str, Any], site: Site) -> list[float]:
    """A cell: how far the loss rises nearby: the most from a start, or by each random step.

    cell: params, of SharpnessParams; seeds: of random steps, or none; start: the seed of a search, or none.
    """
    params = SharpnessParams.model_validate_json(cell["params"])
    loss = site.mean_loss()
    scale = scale_of(loss.weights, params.coordinates)
    if cell["seeds"]:
        return average_case(loss, scale, params.average_radius, cell["seeds"])
    return [worst_case(loss, scale, params.worst_radius, params.ball, steps=params.steps, seed=cell["start"])]


@dataclass(frozen=True)
class Sharpness:
    """How far the loss rises near the weights. NaN where cells failed."""

    worst: float
    """the most that was met in the ball"""
    average: float
    """over random steps"""
    average_error: float
    """standard error of the average"""


@dataclass(frozen=True)
class Spectra:
    """What is known of the Hessian, by layer, and under WHOLE of all. What is not finite or failed is absent."""

    sizes: dict[str, int]
    """weights of each layer"""
    ends: dict[str, Ends]
    traces: dict[str, TraceEstimate]
    densities: dict[str, SpectralDensity]
    principal: float | None
    """the largest eigenvalue in coordinates of filters: the principal curvature of Huang et al. 2020"""
    sharpness: Sharpness | None


def compute_spectra(site: Site, params: SpectraParams, run: Run) -> Spectra:
    """The curvature at a network. Cells that fail leave out what they were to give, and the run is partial."""
    site = replace(site, images=site.images[: params.images], labels=site.labels[: params.images])
    hessian = Hessian(site.network, site.images, site.labels)
    sizes = {name: place.stop - place.start for name, place in hessian.layers.items()}
    every = [WHOLE, *(sizes if params.layers else ())]
    sizes = {WHOLE: hessian.size, **sizes}
    at_ends, principal = _ends(site, params, every, run)
    return Spectra(
        sizes=sizes,
        ends=at_ends,
        traces=_traces(site, params, hessian, run),
        densities=_densities(site, params, every, run),
        principal=principal,
        sharpness=None if params.sharpness is None else _sharpness(site, params.sharpness, run),
    )


def _ends(site: Site, params: SpectraParams, layers: Sequence[str], run: Run) -> tuple[dict[str, Ends], float | None]:
    """Of each layer, and the largest eigenvalue of the whole in coordinates of filters."""
    several = {"coordinates": params.coordinates, "top": params.top, "bottom": params.bottom}
    one = {"layer": WHOLE, "coordinates": "filter", "top": 1, "bottom": 1, "seed": run.seed_for("principal")}
    cells = [{"layer": each, **several, "seed": run.seed_for("ends", each)} for each in layers] + [one]
    cells = [{**cell, "tolerance": params.tolerance} for cell in cells]
    *results, last = run.map(ends_of, cells, shared=site, name="eigenvalues")
    known = {each: Ends(**result) for each, result in zip(layers, results, strict=True) if result}
    return known, float(last["largest"][0]) if last else None


def _traces(site: Site, params: SpectraParams, hessian: Hessian, run: Run) -> dict[str, TraceEstimate]:
    seeds = [run.seed_for("trace", index) for index in range(params.trace_probes)]
    groups = _groups(seeds, GROUP)
    cells = [{"coordinates": params.coordinates, "seeds": group} for group in groups]
    results = [each for each in run.map(trace_shares, cells, shared=site, name="trace") if each is not None]
    if not results or not np.isfinite(known := np.concatenate(results)).all():
        return {}
    return estimates(torch.from_numpy(known), hessian.layers)


def _densities(site: Site, params: SpectraParams, layers: Sequence[str], run: Run) -> dict[str, SpectralDensity]:
    common = {"coordinates": params.coordinates, "steps": params.density_steps}
    cells: list[dict[str, Any]] = [
        {"layer": layer, **common, "seeds": [run.seed_for("density", layer, probe) for probe in group]}
        for layer in layers
        for group in _groups(range(params.density_probes), PAIR)
    ]
    rules: dict[str, list[dict[str, Any]]] = {}
    for cell, result in zip(cells, run.map(quadrature_of, cells, shared=site, name="density"), strict=True):
        if result:
            rules.setdefault(cell["layer"], []).append(result)
    return {
        layer: SpectralDensity(*(np.concatenate([each[name] for each in known]) for name in ("nodes", "weights")))
        for layer, known in rules.items()
    }


def _sharpness(site: Site, params: SharpnessParams, run: Run) -> Sharpness:
    said = params.model_dump_json()
    starts = [run.seed_for("search", index) for index in range(params.restarts)]
    seeds = [run.seed_for("step", index) for index in range(params.samples)]
    groups = _groups(seeds, GROUP)
    cells = [{"params": said, "start": start, "seeds": []} for start in starts]
    cells += [{"params": said, "start": None, "seeds": group} for group in groups]
    results = run.map(rise_of, cells, shared=site, name="sharpness")
    searches = [each[0] for each in results[: len(starts)] if each is not None]
    rises = np.array([rise for each in results[len(starts) :] if each is not None for rise in each])
    return Sharpness(
        worst=max(searches, default=math.nan),
        average=float(rises.mean()) if len(rises) else math.nan,
        average_error=float(rises.std(ddof=1) / math.sqrt(len(rises))) if len(rises) > 1 else math.nan,
    )


def _groups(items: Sequence[int], size: int) -> list[list[int]]:
    """Neighbours, `size` together."""
    return [list(items[first : first + size]) for first in range(0, len(items), size)]
