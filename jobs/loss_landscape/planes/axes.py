"""The axes of a line or of a plane through weight space: one or two directions around the network at the centre."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from jobs.common.curvature.eigenvalues import top_eigenvectors
from jobs.common.curvature.hessian import Hessian
from jobs.common.imports import resolve
from jobs.common.mean_loss.losses import LOSSES
from jobs.common.mean_loss.samples import Samples
from jobs.common.models.directions import Normalisation, between, check_axes, random_direction, rescale
from jobs.common.models.weights import Direction, tensors
from jobs.loss_landscape.files import direction_file
from jobs.loss_landscape.files.exchange import import_directions
from jobs.loss_landscape.files.surface_files import BEGINNING
from jobs.loss_landscape.networks import LandscapeNetwork
from jobs.loss_landscape.planes.plane_params import (
    CENTRE,
    EigenvectorPlane,
    FilePlane,
    ModelPlane,
    PlaneParams,
    RandomPlane,
    TrajectoryPlane,
)
from jobs.loss_landscape.planes.trajectory import principal_axes
from service.errors import InputError
from service.run import Run


@dataclass(frozen=True)
class Axes:
    """One or two directions. made: how, in words. explained: shares of a path along each, () if there is none."""

    directions: Sequence[Direction]
    made: str
    explained: tuple[float, ...] = ()


def axes_of(
    plane: PlaneParams,
    count: int,
    networks: Mapping[str, LandscapeNetwork],
    samples: Samples,
    loss: str,
    run: Run,
) -> Axes:
    """The axes of a plane. count: 1 or 2. samples: for the Hessian, as the network at the centre takes them.

    InputError if there are not so many, or if they span no plane.
    """
    centre = networks[CENTRE].network
    match plane:
        case RandomPlane():
            weights = tensors(centre, plane.space)
            directions = []
            for axis in "xy"[:count]:
                stream = torch.Generator().manual_seed(run.seed_for("direction", axis, plane.draw))
                directions.append(random_direction(weights, plane.normalisation, plane.ignore, stream))
            axes = Axes(directions, f"random, {plane.normalisation} normalisation, ignoring {plane.ignore}")
        case ModelPlane():
            start = tensors(centre, plane.space)
            ends = [each for role, each in networks.items() if role != CENTRE]
            directions = [between(start, tensors(each.network, plane.space), f"network {each.name!r}") for each in ends]
            axes = Axes(directions, f"to {' and '.join(each.name for each in ends)}")
        case TrajectoryPlane():
            names = tensors(centre, plane.space)
            path = [{name: state[name] for name in names} for state in networks[CENTRE].path]
            principal = principal_axes(path, count=count, centred=plane.centred, ignore=plane.ignore)
            directions = [{name: tensor.float() for name, tensor in axis.items()} for axis in principal.axes]
            axes = Axes(directions, "principal axes of training", tuple(map(float, principal.explained)))
        case EigenvectorPlane():
            values, directions = run.reserved(_eigenvectors, plane, count, centre, samples.first(plane.images), loss)
            eigenvalues = " and ".join(f"{value:.3g}" for value in values)
            axes = Axes(directions, f"eigenvectors of the Hessian to {eigenvalues}")
        case FilePlane():
            axes = Axes(_read(plane.path, centre), f"from {plane.path}")
    if len(axes.directions) < count:
        raise InputError(f"a surface over x and y needs two directions, {plane.kind} gives {len(axes.directions)}")
    axes = Axes(axes.directions[:count], axes.made, axes.explained[:count])
    check_axes(axes.directions)
    return axes


def eigenvector_axes(
    hessian: Hessian, count: int = 2, *, normalisation: Normalisation = "none", seed: int, tolerance: float = 0.01
) -> tuple[np.ndarray, list[Direction]]:
    """The directions in which the loss bends most, as axes of a surface: eigenvalues (count,) and directions.

    A direction moves the parameters of the Hessian and no others. Without normalisation its length is 1; with `filter`
    or another, its weights are rescaled like those of a random direction, and it is an eigenvector no longer.
    """
    values, vectors = top_eigenvectors(hessian, hessian.size, count, seed=seed, tolerance=tolerance)
    weights = hessian.weights
    return values, [
        {
            name: rescale(part, weights[name], normalisation) if part.ndim > 1 else part
            for name, part in hessian.direction(torch.from_numpy(vector)).items()
        }
        for vector in vectors
    ]


def _eigenvectors(
    run: Run, plane: EigenvectorPlane, count: int, network: nn.Module, samples: Samples, loss: str
) -> tuple[np.ndarray, list[Direction]]:
    """Eigenvalues (count,) and their directions, on the CPU."""
    hessian = Hessian(
        network.to(run.device),
        samples.images.to(run.device),
        samples.labels.to(run.device),
        loss=resolve(loss, LOSSES, "loss"),
    )
    seed = run.seed_for("eigenvectors")
    values, vectors = eigenvector_axes(hessian, count, normalisation=plane.normalisation, seed=seed)
    return values, [{name: tensor.cpu() for name, tensor in vector.items()} for vector in vectors]


def _read(path: str, network: nn.Module) -> list[Direction]:
    try:
        data = Path(path).expanduser().read_bytes()
    except OSError as error:
        raise InputError(f"directions {path!r} cannot be read: {error.strerror}") from error
    if data.startswith(BEGINNING):
        return import_directions(data, network)
    return direction_file.decode(data, tensors(network), f"directions {path!r}")
