"""The path of training on a plane: the grid that holds it, and the loss along it."""

from dataclasses import dataclass

import numpy as np

from jobs.common.mean_loss.plain import PlainEvaluation, mean_scores
from jobs.common.models.directions import moved
from jobs.common.models.weights import tensors
from jobs.loss_landscape.networks import LandscapeNetwork
from jobs.loss_landscape.planes.axes import Axes
from jobs.loss_landscape.planes.plane_params import PlaneParams, TrajectoryPlane
from jobs.loss_landscape.planes.trajectory import project, surrounding
from jobs.loss_landscape.surface.computation import Subject
from jobs.loss_landscape.surface.grid import AxisParams, GridParams
from service.run import Run


@dataclass(frozen=True)
class TrainingPath:
    """States of a network along its training, projected to a plane."""

    epochs: tuple[int, ...]
    """after which the states were kept"""
    coordinates: np.ndarray
    """float64 (states, 2)"""
    loss: np.ndarray
    """float64 (states,) of the states themselves"""
    projected_loss: np.ndarray
    """float64 (states,) of the points of the plane that they are projected to"""


def grid_around(grid: GridParams, plane: PlaneParams, axes: Axes, centre: LandscapeNetwork) -> GridParams:
    """The grid with bounds that hold the path of training."""
    assert isinstance(plane, TrajectoryPlane)
    coordinates = project(centre.path, centre.path[-1], axes.directions).coordinates
    bounds = surrounding(coordinates, plane.margin)
    x, *others = [
        AxisParams(low=low, high=high, steps=side.steps)
        for side, (low, high) in zip((grid.x, grid.y), bounds, strict=False)
        if side is not None
    ]
    return GridParams(x=x, y=others[0] if others else None)


def path_on(axes: Axes, centre: LandscapeNetwork, subject: Subject, run: Run) -> TrainingPath:
    """The path of training on a plane, with the loss of its states and of the points that they are projected to."""
    start = tensors(centre.network)
    coordinates = project(centre.path, centre.path[-1], axes.directions).coordinates
    projected = [moved(start, axes.directions, at) for at in coordinates.tolist()]
    states = [*({name: state[name] for name in start} for state in centre.path), *projected]
    evaluation = PlainEvaluation(subject.network, states, subject.samples, subject.params.loss)
    losses = np.array([score.loss for score in mean_scores(evaluation, run, "path")])
    count = len(centre.path)
    return TrainingPath(centre.epochs, coordinates, losses[:count], losses[count:])
