"""Surfaces and directions in the formats of other programs: bytes in, bytes out.

Surface file (HDF5): `xcoordinates`, `ycoordinates` (absent for a curve), `dir_file`, and a data set for each quantity.
Direction file (HDF5): a group `xdirection`, perhaps a group `ydirection`, with a data set "0", "1", … for each tensor.
Both are those of the code of Li et al. 2018 (tomgoldstein/loss-landscape), which reads what is written here and whose
files are read here.

A surface is float64 (steps_y, steps_x), a curve (steps_x,). The released code walks through a grid with x fastest, but
gives its array the shape (steps_x, steps_y): no matter for a square grid, but any other is scrambled, and its plots
fail. Here a grid that is not square is written with the shape (steps_y, steps_x), which these plots understand; a
scrambled one is known by its shape and put right when it is read.
"""

import io
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from service.errors import InputError, TooLargeError

QUANTITIES = ("train_loss", "train_acc", "test_loss", "test_acc", "min_eig", "max_eig")
NOT_COMPUTED = -1.0  # what the released code fills an array with before it begins; NaN here

BEGINNING = b"\x89HDF\r\n"  # of every HDF5 file
LARGEST_FILE = 1 << 30  # bytes
LARGEST_GRID = 1 << 24  # points


@dataclass(frozen=True)
class SurfaceFile:
    """What a surface file holds. x: (steps_x,), y: (steps_y,), None for a curve.

    values: by name, of QUANTITIES; each (steps_y, steps_x), or (steps_x,) for a curve. Losses and eigenvalues are what
    they are, accuracies are percentages. NaN where a point was not computed, or is not finite.
    """

    x: np.ndarray
    y: np.ndarray | None
    values: dict[str, np.ndarray]

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.x),) if self.y is None else (len(self.y), len(self.x))


def write_surface(surface: SurfaceFile, directions: str = "") -> bytes:
    """A surface file. directions: the name of the file of its directions, which the format has room for.

    InputError if a quantity is not known to the format, or not of the grid's shape.
    """
    for name, values in surface.values.items():
        if name not in QUANTITIES:
            raise InputError(f"a surface file has no place for {name!r}: {', '.join(QUANTITIES)} are known")
        if values.shape != surface.shape:
            raise InputError(f"{name} has shape {values.shape}, and its grid {surface.shape}")
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        file["dir_file"] = directions
        file["xcoordinates"] = surface.x
        if surface.y is not None:
            file["ycoordinates"] = surface.y
        for name, values in surface.values.items():
            file[name] = values
    return content.getvalue()


def read_surface(content: bytes) -> SurfaceFile:
    """What is in a surface file, of whichever program. InputError names what is wrong with it.

    `dir_file` is left alone: it is text of any length, and HDF5 reads a damaged one for ever.
    """
    with _opened(content, "surface file") as file:
        x = _coordinates(content, file, "xcoordinates")
        y = _coordinates(content, file, "ycoordinates") if _has(file, "ycoordinates") else None
        grid = SurfaceFile(x, y, {})
        points = math.prod(grid.shape)
        if points > LARGEST_GRID:
            raise TooLargeError(f"a surface must have at most {LARGEST_GRID:,} points; it has {points:,}")
        for name in QUANTITIES:
            if _has(file, name):
                values = _numbers(content, file, name, points)
                if values.shape not in (grid.shape, grid.shape[::-1]):
                    raise InputError(f"surface file: {name} has shape {values.shape}, and its grid {grid.shape}")
                values = values.reshape(grid.shape)  # x was fastest, whatever shape the array was given
                grid.values[name] = np.where(values == NOT_COMPUTED, np.nan, values)
    if not grid.values:
        raise InputError(f"surface file: it holds none of {', '.join(QUANTITIES)}")
    return grid


def write_directions(x: Mapping[str, Tensor], y: Mapping[str, Tensor] | None = None) -> bytes:
    """A direction file. Tensors are numbered in the order of the mapping, which is to be that of the network.

    The released code's `weights` are the parameters, its `states` the whole state_dict.
    """
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        for group, direction in (("xdirection", x), ("ydirection", y)):
            for number, tensor in enumerate((direction or {}).values()):
                file[f"{group}/{number}"] = tensor.detach().cpu().numpy()
    return content.getvalue()


def read_directions(content: bytes, *likes: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    """One or two directions, of a direction file of whichever program.

    likes: what they may belong to, in order: the parameters, the state_dict. Tensors get the names and types of the one
    that has as many. InputError unless number and shapes agree.
    """
    directions = []
    with _opened(content, "direction file") as file:
        for name in ("xdirection", "ydirection"):
            if not _has(file, name):
                continue
            group = _member(file, name, h5py.Group)
            like = next((each for each in likes if len(each) == len(group)), None)
            if like is None:
                counts = " or ".join(str(len(each)) for each in likes)
                raise InputError(f"direction file: {name} has {len(group)} tensors, and the network {counts}")
            direction = {}
            for number, (key, tensor) in enumerate(like.items()):
                values = _numbers(content, group, str(number), tensor.numel())
                if values.shape != tensor.shape:
                    shapes = f"{values.shape}, and {key} of the network {tuple(tensor.shape)}"
                    raise InputError(f"direction file: {name}/{number} has shape {shapes}")
                if not np.isfinite(values).all():
                    raise InputError(f"direction file: {name}/{number} is not finite")
                direction[key] = torch.from_numpy(values).to(tensor)
            directions.append(direction)
    if not directions:
        raise InputError("direction file: it has no group xdirection")
    return directions


@contextmanager
def _opened(content: bytes, what: str) -> Iterator[h5py.File]:
    """The file, for reading. Whatever HDF5 finds wrong with it, now or later, is an InputError."""
    if len(content) > LARGEST_FILE:
        raise TooLargeError(f"a {what} must have at most {LARGEST_FILE:,} bytes; it has {len(content):,}")
    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            yield file
    except (OSError, RuntimeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"the {what} is damaged, or not HDF5: {error}") from error


def _has(group: h5py.Group, name: str) -> bool:
    """Whether there is such a member. Unlike `in`, this does not follow links."""
    return bool(group.id.links.exists(name.encode()))


def _member(group: h5py.Group, name: str, kind: type) -> Any:
    """A member of a group that is inside of the file: links are not followed, as they may lead to other files."""
    place = f"{group.name.rstrip('/')}/{name}"
    if not _has(group, name):
        raise InputError(f"{place} is missing")
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise InputError(f"{place} is a link, and links are not followed")
    member = group[name]
    if not isinstance(member, kind):
        raise InputError(f"{place} is not a {kind.__name__.lower()}")
    return member


def _numbers(content: bytes, group: h5py.Group, name: str, most: int) -> np.ndarray:
    """A data set of numbers as float64, taken from the bytes of the file, of which HDF5 tells only the place.

    Its size is checked first. HDF5 itself reads outside of its memory where a compressed data set is damaged.
    """
    dataset = _member(group, name, h5py.Dataset)
    if dataset.dtype.kind not in "fiu" or dataset.shape is None:
        raise InputError(f"{dataset.name} does not hold numbers")
    if dataset.size > most:
        raise InputError(f"{dataset.name} must hold at most {most:,} numbers; it has shape {dataset.shape}")
    place = dataset.id.get_offset()
    if dataset.id.get_create_plist().get_layout() != h5py.h5d.CONTIGUOUS or dataset.external or place is None:
        raise InputError(
            f"{dataset.name} keeps its numbers outside of the file, or in a form that is not allowed",
            hint="compressed files can be unpacked: h5repack -f NONE -l CONTI compressed.h5 plain.h5",
        )
    with np.errstate(invalid="ignore"):  # a signalling NaN becomes a quiet one
        return np.frombuffer(content, dataset.dtype, dataset.size, place).reshape(dataset.shape).astype(np.float64)


def _coordinates(content: bytes, file: h5py.File, name: str) -> np.ndarray:
    values = _numbers(content, file, name, LARGEST_GRID)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise InputError(f"surface file: {name} is not a row of finite numbers")
    return values
