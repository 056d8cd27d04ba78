"""What becomes of the decision boundary when the weights are moved there and back along a random direction.

Source: Huang et al. 2020, section 5, and the animation of the project's page.
"""

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from jobs.common.curvature.coordinates import Scaled, scale_of
from jobs.common.curvature.eigenvalues import ends
from jobs.common.curvature.hessian import Hessian
from jobs.common.data.images.base import ImageSet
from jobs.common.mean_loss.scores import plain_scores
from jobs.common.models.directions import random_direction
from jobs.common.models.weights import Direction, tensors
from jobs.generalization.boundary import probabilities
from jobs.generalization.networks import Measured
from jobs.generalization.sets import Sets
from jobs.generalization.wiggle_params import WiggleParams
from service.errors import RunFailedError
from service.run import Run, reserved_device


@dataclass(frozen=True)
class Path:
    """What all places share. images: as the network takes them."""

    network: nn.Module
    direction: Direction
    images: Tensor
    labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    steps: int
    seed: int


@dataclass(frozen=True)
class Wiggle:
    """What was measured at each place. All float64 (frames,) but maps: float32 (frames, classes, steps, steps)."""

    places: np.ndarray
    loss: np.ndarray
    accuracy: np.ndarray
    """on the training points"""
    test_accuracy: np.ndarray
    curvature: np.ndarray
    """largest eigenvalue of the Hessian in filter-normalised coordinates; NaN where the loss is not finite"""
    maps: np.ndarray

    def rows(self) -> list[dict[str, float]]:
        """A row a place."""
        names = ("places", "loss", "accuracy", "test_accuracy", "curvature")
        columns = [getattr(self, name).tolist() for name in names]
        return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def wiggle(params: WiggleParams, measured: Measured, sets: Sets, run: Run) -> Wiggle:
    """Measure every place, each in a cell. The direction depends on the seed and the shapes of the weights alone, so
    that networks of one architecture move along the same one, each rescaled by its own filters.

    RunFailedError if a cell failed: an animation needs all of them.
    """
    stream = torch.Generator().manual_seed(run.seed_for("wiggle", params.draw))
    weights = tensors(measured.network, "weights")
    direction = random_direction(weights, "filter", "biasbn", stream)  # biases stay
    path = Path(
        measured.network,
        direction,
        *_all(sets.training),
        *_all(sets.test),
        params.steps,
        run.seed_for("wiggle curvature"),
    )
    results = run.map(measured_at, params.places.tolist(), shared=path, name="wiggle")
    if failed := sum(result is None for result in results):
        raise RunFailedError(f"{failed} of {len(results)} places of the wiggle could not be computed")
    columns = {name: np.array([result[name] for result in results]) for name in results[0] if name != "map"}
    return Wiggle(places=params.places, maps=np.stack([result["map"] for result in results]), **columns)


def measured_at(place: float, path: Path) -> dict[str, Any]:
    """A cell: everything at one place."""
    network = copy.deepcopy(path.network).eval()
    with torch.no_grad():
        for name, weight in tensors(network, "weights").items():
            weight += place * path.direction[name]
    device = reserved_device()
    network, images, labels = network.to(device), path.images.to(device), path.labels.to(device)
    scores = plain_scores(network, {}, images, labels, "cross_entropy")
    test = plain_scores(network, {}, path.test_images.to(device), path.test_labels.to(device), "cross_entropy")
    return {
        "loss": scores.loss,
        "accuracy": scores.accuracy,
        "test_accuracy": test.accuracy,
        "curvature": curvature(network, images, labels, path.seed),
        "map": probabilities(network, path.steps).numpy(),
    }


def curvature(network: nn.Module, images: Tensor, labels: Tensor, seed: int) -> float:
    """The largest eigenvalue of the Hessian of the mean loss, in units of the norm of each filter.

    NaN where the loss is not finite.
    """
    hessian = Hessian(network, images, labels)
    scaled = Scaled(hessian, scale_of(hessian.weights, "filter").to(hessian.device))
    try:
        return float(ends(scaled, 1, 1, seed=seed).largest[0])
    except FloatingPointError:
        return float("nan")


def _all(images: ImageSet) -> tuple[Tensor, Tensor]:
    return images.images(torch.arange(len(images))), images.labels
