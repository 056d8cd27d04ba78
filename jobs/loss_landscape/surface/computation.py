"""The loss over a line or a plane, point by point on all workers there are: `run.map` over the points of a grid."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import nn

from jobs.common.mean_loss.samples import Samples
from jobs.common.models.weights import Direction
from jobs.loss_landscape.surface.evaluator import Evaluator, EvaluatorParams
from jobs.loss_landscape.surface.grid import GridParams
from jobs.loss_landscape.surface.refinement import Index, RefinementParams, interpolate, measure
from service.run import Run

LOW_LOSS = 0.1  # below which bfloat16 is checked
CHECKED = 0.01  # of all points, drawn at random, at which it is checked as well


@dataclass(frozen=True)
class Subject:
    """What all points share. samples: as the network takes them."""

    network: nn.Module
    axes: Sequence[Direction]
    samples: Samples
    population: int
    """images in the set that the samples were drawn from"""
    params: EvaluatorParams

    @cached_property
    def evaluator(self) -> Evaluator:
        """Made once for each worker."""
        return Evaluator(self.network, self.axes, self.samples.images, self.samples.labels, self.params)


def loss_at(cell: dict[str, Any], subject: Subject) -> dict[str, Any]:
    """A cell of the grid: at, its coordinates; exact, whether it has to be computed in float32.

    deviation: of bfloat16 relative to float32, where both were computed.
    """
    evaluator, precision = subject.evaluator, subject.params.precision
    scores = evaluator.at(cell["at"], precision)
    deviation = None
    if precision != "float32" and (cell["exact"] or scores.loss < LOW_LOSS or scores.not_finite):
        low, scores = scores, evaluator.at(cell["at"])
        if not (low.censored or scores.censored) and low.not_finite + scores.not_finite == 0 and scores.loss:
            deviation = abs(low.loss - scores.loss) / abs(scores.loss)
    return {
        "loss": scores.loss,
        "accuracy": scores.accuracy,
        "error": scores.standard_error(subject.population),
        "images": len(scores.losses),
        "not_finite": scores.not_finite,
        "censored": scores.censored,
        "deviation": deviation,
    }


def policy_of(precision: str, subject: Subject) -> str:
    """A cell: how points are computed on the workers, in words."""
    return "; ".join([precision, *subject.evaluator.policy])


@dataclass(frozen=True)
class Surface:
    """A surface over a grid. Each array (steps_y, steps_x), or (1, steps) for a line."""

    x: np.ndarray
    """float64 (steps_x,)"""
    y: np.ndarray | None
    """float64 (steps_y,); none for a line"""
    loss: np.ndarray
    """the mean over the images; infinite or NaN where it is, NaN also where the cell failed"""
    accuracy: np.ndarray
    """shares in [0, 1]"""
    error: np.ndarray
    """the standard error of the loss, as an estimate of that over the whole set"""
    measured: np.ndarray
    """bool; elsewhere the surface is interpolated"""
    censored: np.ndarray
    """bool: computed on a part of the images, on which the loss is above the bound"""
    images: np.ndarray
    """int64: forward passes that the point took, of single images"""
    not_finite: int
    """measured points where the loss of an image is NaN or infinite"""
    deviations: np.ndarray
    """float64 (checked points,): of bfloat16, relative to float32"""
    samples: int
    """images that the loss is the mean over"""
    population: int
    """images in the set that these were drawn from"""
    policy: str | None
    """how points were computed on the workers, in words; none: the cell failed"""


def compute_surface(subject: Subject, grid: GridParams, refinement: RefinementParams | None, run: Run) -> Surface:
    """The surface, of all points or of a part of them. A cell that fails leaves a NaN, and the run is partial."""
    scores_at: dict[Index, dict[str, Any]] = {}
    stream = torch.Generator().manual_seed(run.seed_for("checked"))
    drawn = (torch.rand(grid.shape, generator=stream) < CHECKED).numpy()

    def losses_at(points: list[Index]) -> list[float]:
        cells = []
        for row, column in points:
            at = grid.point(row, column)
            cells.append({"at": at, "exact": bool(drawn[row, column]) or not any(at)})
        results = run.map(loss_at, cells, shared=subject, name="surface")
        scores_at.update({point: result for point, result in zip(points, results, strict=True) if result is not None})
        return [scores_at[point]["loss"] if point in scores_at else float("nan") for point in points]

    loss, measured = measure(grid.shape, refinement, losses_at)

    def gathered(name: str, empty: float) -> np.ndarray:
        values = np.full(grid.shape, empty)
        for point, result in scores_at.items():
            values[point] = result[name]
        return values

    (policy,) = run.map(policy_of, [subject.params.precision], shared=subject, name="policy")
    deviations = [each["deviation"] for each in scores_at.values() if each["deviation"] is not None]
    return Surface(
        x=grid.x.coordinates,
        y=None if grid.y is None else grid.y.coordinates,
        loss=loss,
        accuracy=interpolate(gathered("accuracy", np.nan), measured),
        error=interpolate(gathered("error", np.nan), measured),
        measured=measured,
        censored=gathered("censored", 0).astype(bool),
        images=gathered("images", 0).astype(np.int64),
        not_finite=sum(each["not_finite"] > 0 for each in scores_at.values()),
        deviations=np.array(deviations, dtype=np.float64),
        samples=len(subject.samples.labels),
        population=subject.population,
        policy=policy,
    )
