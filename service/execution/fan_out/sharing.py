"""What all cells of a map share, on its way to the workers: a stream of pickle, and beside it the arrays.

The stream and the arrays go through Ray's object store, never through files. Arrays and tensors lie in the store once a
node and are used where they lie. The tensors of a torch module are the exception: each worker has its own copy, as a
scratch that a cell may overwrite.
"""

import copyreg
import hashlib
import io
import itertools
import pickle
import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel
from torch import Tensor, nn

from service.errors import InputError


@dataclass(frozen=True)
class Packed:
    """A value taken apart. digest: the same for equal values, in every process."""

    stream: bytes
    arrays: list[np.ndarray]
    digest: str


@dataclass(frozen=True)
class Prepared:
    """A value put together again, and the tensors in it that nobody may write to, with their version counters."""

    value: Any
    frozen: list[tuple[Tensor, int]] = field(default_factory=list)

    def check(self) -> None:
        """InputError if somebody wrote to a shared tensor: the next cell, and other workers, would see it."""
        if any(tensor._version != version for tensor, version in self.frozen):
            raise InputError("a cell wrote to a tensor of `shared`", hint="clone it first; a module may be overwritten")


def pack(value: Any) -> Packed:
    """Take a value apart. InputError if there is something in it that cannot be sent to another process."""
    try:
        try:
            return _pack(value, by_value=True)
        except (ValueError, RecursionError):
            return _pack(value, by_value=False)  # an object that contains itself
    except (pickle.PicklingError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise InputError(f"run.map: `shared` cannot be sent to workers: {error}") from error


def unpack(packed: Packed) -> Prepared:
    """Put a value together again, on the CPU. Arrays are read-only; tensors outside of modules are only to be read."""
    unpickler = _Unpickler(packed)
    value = unpickler.load()
    return Prepared(value, [(tensor, tensor._version) for tensor in unpickler.frozen])


def _pack(value: Any, by_value: bool) -> Packed:
    data = io.BytesIO()
    pickler = _Pickler(data, protocol=5)
    # without a memo the stream depends on values alone, not on which of them happen to be one object
    pickler.fast = by_value
    pickler.dump(value)
    digest = hashlib.sha256(data.getvalue())
    for array in pickler.arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return Packed(data.getvalue(), pickler.arrays, digest.hexdigest())


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO, protocol: int) -> None:
        super().__init__(file, protocol)
        self.arrays: list[np.ndarray] = []
        self._places: dict[int, tuple[int, Any]] = {}  # id -> place in `arrays`, and the object, to keep the id its own
        self._of_modules: set[int] = set()

    def persistent_id(self, obj: Any) -> Any:
        if isinstance(obj, nn.Module):
            self._of_modules |= {id(tensor) for tensor in itertools.chain(obj.parameters(), obj.buffers())}
        elif type(obj) in (Tensor, nn.Parameter) and obj.layout is torch.strided and not obj.is_quantized:
            return self._tensor(obj)
        elif type(obj) is np.ndarray and not obj.dtype.hasobject:
            return "array", self._place(obj, lambda: np.ascontiguousarray(obj).reshape(obj.shape))
        elif type(obj) in (set, frozenset):
            return "set", type(obj) is frozenset, sorted(obj, key=repr)  # their order differs between processes
        return None

    def reducer_override(self, obj: Any) -> Any:
        if not isinstance(obj, BaseModel):
            return NotImplemented
        # equal models are one value, whichever of their fields were given explicitly: a resumed run gives them all
        state = {**obj.__getstate__(), "__pydantic_fields_set__": set(type(obj).model_fields)}
        return copyreg.__newobj__, (type(obj),), state  # type: ignore[attr-defined]

    def _tensor(self, tensor: Tensor) -> tuple[Any, ...]:
        # axes in the order of memory, so that channels-last stays what it is
        order = sorted(range(tensor.dim()), key=lambda axis: (-tensor.stride()[axis], axis))
        plain = tensor.detach().cpu().resolve_conj().resolve_neg().permute(order)
        place = self._place(tensor, lambda: plain.contiguous().reshape(-1).view(torch.uint8).numpy())
        parameter = isinstance(tensor, nn.Parameter)
        own = id(tensor) in self._of_modules or parameter or tensor.requires_grad
        return "tensor", place, tensor.dtype, tuple(plain.shape), order, parameter, tensor.requires_grad, own

    def _place(self, obj: Any, array: Any) -> int:
        if id(obj) not in self._places:
            self._places[id(obj)] = len(self.arrays), obj
            self.arrays.append(array())
        return self._places[id(obj)][0]


class _Unpickler(pickle.Unpickler):
    def __init__(self, packed: Packed) -> None:
        super().__init__(io.BytesIO(packed.stream))
        self.arrays = packed.arrays
        self.frozen: list[Tensor] = []
        self._made: dict[int, Any] = {}

    def persistent_load(self, pid: Any) -> Any:
        kind, *rest = pid
        if kind == "set":
            frozen, items = rest
            return frozenset(items) if frozen else set(items)
        place, *form = rest
        if place not in self._made:  # tied weights stay tied
            self._made[place] = self._tensor(self.arrays[place], *form) if form else _read_only(self.arrays[place])
        return self._made[place]

    def _tensor(
        self,
        flat: np.ndarray,
        dtype: torch.dtype,
        shape: tuple[int, ...],
        order: list[int],
        parameter: bool,
        requires_grad: bool,
        own: bool,
    ) -> Tensor:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*not writable")  # `frozen` watches it
            raw = torch.from_numpy(flat.copy() if own else flat)
        inverse = sorted(range(len(order)), key=order.__getitem__)
        tensor = (raw.view(dtype) if len(raw) else torch.empty(0, dtype=dtype)).reshape(shape).permute(inverse)
        if not own:
            self.frozen.append(tensor)
        return nn.Parameter(tensor, requires_grad) if parameter else tensor.requires_grad_(requires_grad)


def _read_only(array: np.ndarray) -> np.ndarray:
    view = array.view()
    view.flags.writeable = False
    return view
