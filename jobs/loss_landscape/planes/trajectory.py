"""The path of training in weight space: its principal axes, and where its checkpoints fall in a plane.

A checkpoint is a dict of tensors keyed like a state_dict. What is passed is what counts: `named_parameters` for a path
of weights, a whole `state_dict` for one of states (counters and other integers never take part).

Source: Li et al. 2018, section 7 ("Visualizing optimization paths").
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from jobs.common.models.directions import Ignore, check_axes, complete
from jobs.common.models.weights import Direction, check_alike, check_finite
from service.errors import FieldError, InputError

State = Mapping[str, Tensor]

FLAT = 1e-10  # a smaller share of the first principal value is rounding: the path does not leave the axes before


@dataclass(frozen=True)
class PrincipalAxes:
    """Orthogonal directions of length 1, those along which a path varies most first.

    explained: float64 (axes,), the share of the path's variance along each, in [0, 1].
    A path in a straight line has one axis, whatever number was asked for.
    """

    axes: tuple[Direction, ...]
    explained: np.ndarray
    centred: bool


@dataclass(frozen=True)
class Projection:
    """Where checkpoints fall in a plane (or on a line).

    coordinates: float64 (checkpoints, axes), in units of each axis, as on a surface drawn along these axes.
    captured: float64 (checkpoints,), the share in [0, 1] of each checkpoint's squared distance from the centre that
    lies in the plane; 1 for the centre itself. The lower it is, the less the loss drawn under the point tells of the
    loss of the checkpoint.
    """

    coordinates: np.ndarray
    captured: np.ndarray


def principal_axes(
    checkpoints: Sequence[State], *, count: int = 2, centred: bool = True, ignore: Ignore = "none"
) -> PrincipalAxes:
    """The principal axes of the checkpoints' differences to the last one.

    centred: take the mean difference away first, as the released code does; without, the axes are those of the matrix
    of differences of section 7, whose plane fits best among those through the last checkpoint.
    ignore: with `biasbn`, tensors of at most one dimension (biases, batch norm) do not move and are zero in the axes.
    Signs are chosen so that the checkpoint farthest along an axis is on its negative side: paths come from the left.
    InputError if the checkpoints do not fit together, are not finite, or are all the same.
    """
    _check(checkpoints)
    gram = sum(rows @ rows.T for _, rows in _differences(checkpoints, checkpoints[-1], ignore))
    products = np.asarray(gram, dtype=np.float64)  # (checkpoints, checkpoints)
    if not products.any():
        raise InputError("a trajectory needs at least two checkpoints that differ, and these are all the same")

    steps = len(checkpoints)
    centring = np.eye(steps) - (1 / steps if centred else 0.0)
    values, vectors = np.linalg.eigh(centring @ products @ centring)
    values, vectors = values[::-1].clip(min=0), vectors[:, ::-1]
    kept = [index for index in range(min(count, steps)) if values[index] > FLAT * values[0]]
    # an axis is a combination of rows, of length 1: (axes, checkpoints)
    combinations = (centring @ vectors[:, kept] / np.sqrt(values[kept])).T
    scores = combinations @ products
    farthest = scores[np.arange(len(kept)), np.abs(scores).argmax(1)]
    combinations *= -np.sign(farthest)[:, None]

    last = checkpoints[-1]
    axes: list[Direction] = [{name: torch.zeros_like(tensor) for name, tensor in _moving(last)} for _ in kept]
    for name, rows in _differences(checkpoints, last, ignore):
        for axis, combined in zip(axes, combinations @ rows, strict=True):
            axis[name] = torch.from_numpy(combined).view_as(last[name]).to(last[name])
    return PrincipalAxes(tuple(axes), values[kept] / values.sum(), centred)


def project(checkpoints: Sequence[State], centre: State, axes: Sequence[State]) -> Projection:
    """The point of the plane (or the line) through `centre` that is nearest to each checkpoint: least squares.

    axes: one or two, which need be neither orthogonal nor of length 1; an entry that an axis lacks is zero in it. The
    released code divides inner products by the length of the axis instead, which is right for orthogonal axes of length
    1 and no others. InputError if the checkpoints do not fit the centre, or the axes are zero or parallel.
    """
    _check([*checkpoints, centre])
    axes = [complete(axis, centre) for axis in axes]
    check_axes(axes)
    gram = np.zeros((len(axes), len(axes)))
    inner = np.zeros((len(axes), len(checkpoints)))
    squared = np.zeros(len(checkpoints))  # of the distance from the centre
    for name, rows in _differences(checkpoints, centre, "none"):
        along = np.stack([_row(axis[name]) for axis in axes])
        gram += along @ along.T
        inner += along @ rows.T
        squared += np.square(rows).sum(1)
    lengths = np.sqrt(np.diag(gram))
    inner /= lengths[:, None]  # in units of length, so that a long axis hides no short one
    scaled = np.linalg.solve(gram / np.outer(lengths, lengths), inner)
    inside = (scaled * inner).sum(0)
    captured = np.divide(inside, squared, out=np.ones_like(squared), where=squared > 0).clip(0, 1)
    return Projection((scaled / lengths[:, None]).T, captured)


def surrounding(coordinates: np.ndarray, margin: float = 0.15) -> tuple[tuple[float, float], ...]:
    """Bounds of a grid that holds a path and its centre: (lowest, highest) along each axis.

    coordinates: (checkpoints, axes). margin: on each side, as a share of the extent; an axis along which the path
    does not move gets the extent of the widest one.
    """
    lowest, highest = coordinates.min(0).clip(max=0), coordinates.max(0).clip(min=0)
    extent = highest - lowest
    extent = np.where(extent > FLAT * extent.max(), extent, extent.max())
    if not extent.all():
        raise InputError("a path that does not move has no surroundings to draw")
    return tuple(
        (float(low - margin * wide), float(high + margin * wide))
        for low, high, wide in zip(lowest, highest, extent, strict=True)
    )


def _differences(checkpoints: Sequence[State], centre: State, ignore: Ignore) -> Iterator[tuple[str, np.ndarray]]:
    """Entry by entry, float64 (checkpoints, numbers): a matrix of all entries would not fit for large networks."""
    for name, tensor in _moving(centre):
        if ignore == "biasbn" and tensor.dim() <= 1:
            continue
        yield name, np.stack([_row(checkpoint[name]) for checkpoint in checkpoints]) - _row(tensor)


def _moving(state: State) -> list[tuple[str, Tensor]]:
    return [(name, tensor) for name, tensor in state.items() if tensor.is_floating_point()]


def _row(tensor: Tensor) -> np.ndarray:
    row: np.ndarray = tensor.detach().to("cpu", torch.float64).reshape(-1).numpy()
    return row


def _check(checkpoints: Sequence[State]) -> None:
    """InputError unless there are two checkpoints, of one architecture, and finite."""
    if len(checkpoints) < 2:
        raise FieldError("checkpoints", "be at least 2 for a trajectory", len(checkpoints))
    for index, checkpoint in enumerate(checkpoints):
        check_alike(checkpoints[-1], checkpoint, f"checkpoint {index}")
        check_finite(checkpoint, f"checkpoint {index}")
