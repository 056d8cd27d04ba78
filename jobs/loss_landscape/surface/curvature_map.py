"""A map of the curvature: the extreme eigenvalues of the Hessian at points of a plane or of a line, as cells."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field
from torch import Tensor, nn

from jobs.common.curvature.eigenvalues import ends
from jobs.common.curvature.hessian import Hessian
from jobs.common.imports import resolve
from jobs.common.mean_loss.losses import LOSSES, Loss, cross_entropy
from jobs.common.params import StudyParams
from jobs.loss_landscape.surface.computation import Subject
from jobs.loss_landscape.surface.grid import GridParams
from service.run import Run, reserved_device


class CurvatureParams(StudyParams):
    """A map of the Hessian's extreme eigenvalues, over the bounds of the surface (Li et al. 2018, section 6)."""

    steps: int = Field(13, ge=2, le=1000, description="points along each axis; each costs hundreds of the surface's")
    images: int = Field(1000, ge=1, description="images that the Hessian is computed on, at most")


@dataclass(frozen=True)
class Neighbourhood:
    """What is shared by all points of a curvature map. axes: one or two directions, keyed like the state_dict."""

    network: nn.Module
    axes: Sequence[Mapping[str, Tensor]]
    images: Tensor
    labels: Tensor
    seed: int
    loss: Loss = cross_entropy
    tolerance: float = 0.01
    names: Collection[str] | None = None


def curvature_at(point: Sequence[float], shared: Neighbourhood) -> dict[str, float]:
    """A cell of a curvature map: the loss and the extreme eigenvalues of its Hessian at a point of the plane.

    point: one coordinate an axis. Returns loss, smallest, largest, ratio and products; where the loss or a derivative
    of it is not finite, eigenvalues and ratio are NaN.
    """
    device = reserved_device()
    network = shared.network.to(device)
    centre = network.state_dict()
    steps = list(zip(point, shared.axes, strict=True))
    weights = {
        name: tensor + sum(step * axis[name].to(tensor) for step, axis in steps if name in axis)
        for name, tensor in centre.items()
        if any(name in axis for axis in shared.axes)
    }
    hessian = Hessian(
        network,
        shared.images.to(device),
        shared.labels.to(device),
        weights=weights,
        names=shared.names,
        loss=shared.loss,
    )
    loss = hessian.mean_loss()
    nan = float("nan")
    try:
        extremes = ends(hessian, 1, 1, seed=shared.seed, tolerance=shared.tolerance)
    except FloatingPointError:
        return {"loss": loss, "smallest": nan, "largest": nan, "ratio": nan, "products": 0}
    smallest, largest = float(extremes.smallest[0]), float(extremes.largest[0])
    return {
        "loss": loss,
        "smallest": smallest,
        "largest": largest,
        "ratio": extremes.ratio,
        "products": extremes.products,
    }


@dataclass(frozen=True)
class Curvature:
    """The extreme eigenvalues over a grid. smallest, largest: float64 (steps_y, steps_x), NaN where a cell failed."""

    grid: GridParams
    smallest: np.ndarray
    largest: np.ndarray


def compute_curvature(params: CurvatureParams, surface_grid: GridParams, subject: Subject, run: Run) -> Curvature:
    """The Hessian's extreme eigenvalues over the bounds of a surface."""
    grid = surface_grid.with_steps(params.steps)
    samples = subject.samples.first(params.images)
    shared = Neighbourhood(
        subject.network,
        subject.axes,
        samples.images,
        samples.labels,
        run.seed_for("curvature"),
        resolve(subject.params.loss, LOSSES, "loss"),
    )
    rows, columns = grid.shape
    cells = [grid.point(row, column) for row in range(rows) for column in range(columns)]
    results = run.map(curvature_at, cells, shared=shared, name="curvature")
    smallest, largest = (
        np.array([np.nan if each is None else each[name] for each in results]).reshape(grid.shape)
        for name in ("smallest", "largest")
    )
    return Curvature(grid, smallest, largest)
