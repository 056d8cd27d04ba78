"""Which line or plane through weight space is looked at."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from jobs.common.imports import resolve
from jobs.common.models.weights import Direction, Space, tensors
from jobs.common.params import StudyParams
from jobs.loss_landscape.curvature import Hessian, eigenvector_axes
from jobs.loss_landscape.directions import (
    Ignore,
    Normalisation,
    between,
    check_axes,
    random_direction,
    rescale,
)
from jobs.loss_landscape.evaluation import LOSSES
from jobs.loss_landscape.files import direction_file
from jobs.loss_landscape.networks import Found, NetworkParams
from jobs.loss_landscape.trajectory import principal_axes
from service.errors import InputError
from service.run import Run


class RandomPlane(StudyParams):
    """Gaussian directions (Li et al. 2018, section 4)."""

    kind: Literal["random"] = Field("random", description="Gaussian directions")
    normalisation: Normalisation = Field(
        "filter",
        description="filter or layer: as long as each filter or layer of the weights; weight: times each weight; "
        "dfilter, dlayer: of length 1; none: as drawn",
    )
    ignore: Ignore = Field("biasbn", description="biasbn: biases and batch norm stay; none: they are scaled by 1 + x")
    space: Space = Field("weights", description="states: running statistics of batch norm move as well")
    draw: int = Field(0, ge=0, description="another number draws other directions")


class ModelPlane(StudyParams):
    """Through the network and one or two others, which are at 1 on the axes."""

    kind: Literal["models"] = Field("models", description="from the network to other ones")
    x: NetworkParams = Field(description="the network at (1, 0)")
    y: NetworkParams | None = Field(None, description="the network at (0, 1); none: a line")
    space: Space = Field("states", description="weights: running statistics of batch norm stay those at the centre")


class TrajectoryPlane(StudyParams):
    """In which the path of training moves most: the first principal axes (Li et al. 2018, section 7)."""

    kind: Literal["trajectory"] = Field("trajectory", description="principal axes of the path of training")
    centred: bool = Field(True, description="take the mean away before, as the released code does")
    ignore: Ignore = Field("none", description="biasbn: biases and batch norm stay")
    space: Space = Field("weights", description="states: running statistics of batch norm move as well")
    margin: float = Field(0.15, ge=0, le=10, description="around the path, a share of its extent; it sets the bounds")


class EigenvectorPlane(StudyParams):
    """In which the loss bends most at the centre: eigenvectors of its Hessian with the largest eigenvalues."""

    kind: Literal["eigenvectors"] = Field("eigenvectors", description="top eigenvectors of the Hessian")
    images: int = Field(1000, ge=1, description="images that the Hessian is computed on, at most")
    normalisation: Normalisation = Field("none", description="none: of length 1; else as for random directions")


class FilePlane(StudyParams):
    """The directions of an earlier run."""

    kind: Literal["file"] = Field("file", description="directions that a run around the same model has saved")
    path: str = Field(min_length=1, description="path of a directions.safetensors of that run")


PlaneParams = Annotated[
    RandomPlane | ModelPlane | TrajectoryPlane | EigenvectorPlane | FilePlane, Field(discriminator="kind")
]


@dataclass(frozen=True)
class Axes:
    """One or two directions. made: how, in words. explained: shares of a path along each, () if there is none."""

    directions: Sequence[Direction]
    made: str
    explained: tuple[float, ...] = ()


def others(plane: PlaneParams) -> dict[str, NetworkParams]:
    """The networks that a plane goes through besides the one at the centre, by axis."""
    if not isinstance(plane, ModelPlane):
        return {}
    return {"x": plane.x} if plane.y is None else {"x": plane.x, "y": plane.y}


def axes_of(
    plane: PlaneParams, count: int, found: Mapping[str, Found], images: Tensor, labels: Tensor, loss: str, run: Run
) -> Axes:
    """The axes of a plane. count: 1 or 2. images, labels: for the Hessian, as the network at the centre takes them.

    InputError if there are not so many, or if they span no plane.
    """
    centre = found[""].network
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
            ends = [each for role, each in found.items() if role]
            directions = [between(start, tensors(each.network, plane.space), f"network {each.name!r}") for each in ends]
            axes = Axes(directions, f"to {' and '.join(each.name for each in ends)}")
        case TrajectoryPlane():
            names = tensors(centre, plane.space)
            path = [{name: state[name] for name in names} for state in found[""].path]
            principal = principal_axes(path, count=count, centred=plane.centred, ignore=plane.ignore)
            directions = [{name: tensor.float() for name, tensor in axis.items()} for axis in principal.axes]
            axes = Axes(directions, "principal axes of training", tuple(map(float, principal.explained)))
        case EigenvectorPlane():
            some = slice(0, plane.images)
            values, directions = run.reserved(_eigenvectors, plane, count, centre, images[some], labels[some], loss)
            said = " and ".join(f"{value:.3g}" for value in values)
            axes = Axes(directions, f"eigenvectors of the Hessian to {said}")
        case FilePlane():
            axes = Axes(_read(plane.path, tensors(centre)), f"from {plane.path}")
    if len(axes.directions) < count:
        raise InputError(f"a surface over x and y needs two directions, {plane.kind} gives {len(axes.directions)}")
    axes = Axes(axes.directions[:count], axes.made, axes.explained[:count])
    check_axes(axes.directions)
    return axes


def _eigenvectors(
    run: Run, plane: EigenvectorPlane, count: int, network: nn.Module, images: Tensor, labels: Tensor, loss: str
) -> tuple[np.ndarray, list[Direction]]:
    """Eigenvalues (count,) and their directions, on the CPU."""
    weights = tensors(network, "weights")
    hessian = Hessian(
        network.to(run.device), images.to(run.device), labels.to(run.device), loss=resolve(loss, LOSSES, "loss")
    )
    values, vectors = eigenvector_axes(hessian, count, seed=run.seed_for("eigenvectors"))
    return values, [
        {name: rescale(tensor.cpu(), weights[name].cpu(), plane.normalisation) for name, tensor in vector.items()}
        for vector in vectors
    ]


def _read(path: str, weights: Mapping[str, Tensor]) -> list[Direction]:
    try:
        data = Path(path).expanduser().read_bytes()
    except OSError as error:
        raise InputError(f"directions {path!r} cannot be read: {error.strerror}") from error
    return direction_file.decode(data, weights, f"directions {path!r}")
