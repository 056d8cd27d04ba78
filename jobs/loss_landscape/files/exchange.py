"""A landscape in files of other programs: those of the code of Li et al. 2018, and ParaView's."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from jobs.common.models.directions import complete
from jobs.common.models.weights import Direction, tensors
from jobs.loss_landscape.files.paraview import VtpParams, vtk_polydata
from jobs.loss_landscape.files.surface_files import (
    QUANTITIES,
    SurfaceFile,
    read_directions,
    read_surface,
    write_directions,
    write_surface,
)
from service.errors import InputError
from service.run import Run

DIRECTIONS = "directions.h5"


def export_directions(axes: Sequence[Direction], network: nn.Module, run: Run) -> None:
    """The directions, each with a tensor for all parameters, or for the whole state if one of them moves statistics."""
    whole: Mapping[str, Tensor] = dict(network.named_parameters())
    if any(name not in whole for axis in axes for name in axis):
        whole = network.state_dict()
    full = [{name: axis.get(name, torch.zeros_like(each)) for name, each in whole.items()} for axis in axes]
    run.file(DIRECTIONS, write_directions(*full), title="The directions as HDF5")


def import_directions(data: bytes, network: nn.Module) -> list[Direction]:
    """The directions of a file of the released code, around a network with its layers in the same order.

    InputError unless they have as many tensors as the network has parameters or states, of the same shapes.
    """
    moving = tensors(network)
    # the third are states without counters, which old versions of torch did not have
    directions = read_directions(data, dict(network.named_parameters()), network.state_dict(), moving)
    return [
        complete({name: each for name, each in direction.items() if name in moving}, moving) for direction in directions
    ]


def import_surface(path: str) -> SurfaceFile:
    """What is in a surface file of the released code. InputError if it cannot be read."""
    try:
        data = Path(path).expanduser().read_bytes()
    except OSError as error:
        raise InputError(f"surface_file {path!r} cannot be read: {error.strerror}") from error
    return read_surface(data)


def export_surface(name: str, x: np.ndarray, y: np.ndarray | None, values: Mapping[str, np.ndarray], run: Run) -> None:
    """Quantities of a grid in a surface file NAME.h5. values: by name, of QUANTITIES; (steps_y, steps_x) each."""
    assert values.keys() <= set(QUANTITIES)
    shaped = {key: array[0] if y is None else array for key, array in values.items()}
    run.file(f"{name}.h5", write_surface(SurfaceFile(x, y, shaped), DIRECTIONS), title=f"The {name} as HDF5")


def export_vtp(loss: np.ndarray, x: np.ndarray, y: np.ndarray, params: VtpParams, run: Run) -> None:
    """A surface for ParaView, in a file that is named for its height. A run warns if it cannot be resampled."""
    options = params.model_dump()
    try:
        text = vtk_polydata(loss, x, y, **options)
    except InputError as error:
        run.warn(f"the file for ParaView has the computed points alone: {error.message}")
        text = vtk_polydata(loss, x, y, **{**options, "steps": None})
    run.file(f"surface_{params.height}.vtp", text.encode(), title=f"The {params.height} for ParaView")
