"""Tensors as the Open Inference Protocol writes them: JSON numbers, or raw bytes behind the JSON header.

Raw bytes are row-major and little-endian (binary tensor data extension of the protocol).
"""

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from service.errors import InputError, nearest, shown

Array = npt.NDArray[Any]

DATATYPES: Mapping[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype("<u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("<i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
_NAMES = {(dtype.kind, dtype.itemsize): name for name, dtype in DATATYPES.items()}
_JSON_TYPES: Mapping[str, tuple[set[type], str]] = {  # by the kind of dtype: what JSON has for it
    "b": ({bool}, "true or false"),
    "i": ({int}, "whole numbers"),
    "u": ({int}, "whole numbers"),
    "f": ({int, float}, "numbers"),
}
BF16 = "BF16"  # the upper half of a float32, and read as one: numpy has no such type
MAX_DIMENSIONS = 8
MAX_SIZE = 2**31 - 1  # along one dimension


def dtype_of(name: str, datatype: Any) -> np.dtype[Any]:
    """The numpy dtype of a datatype of the protocol. InputError if it is not supported."""
    if datatype == "BYTES":
        raise InputError(f"input {name!r}: datatype {datatype} is not supported; send numbers, for example FP32")
    if datatype == BF16:
        return DATATYPES["FP32"]
    if not isinstance(datatype, str) or datatype not in DATATYPES:
        raise InputError(f"input {name!r}: unknown datatype {shown(datatype)}", nearest(str(datatype), DATATYPES))
    return DATATYPES[datatype]


def datatype_of(array: Array) -> str:
    """The protocol's name of an array's dtype."""
    return _NAMES[array.dtype.kind, array.dtype.itemsize]


def check_shape(name: str, shape: Any) -> tuple[int, ...]:
    """A shape as a client wrote it, checked. Nothing is allocated for it."""
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise InputError(f"input {name!r}: shape must be a list of whole numbers, not {_short(shape)}")
    if any(size > MAX_SIZE for size in shape):
        raise InputError(f"input {name!r}: shape must have sizes of at most {MAX_SIZE:,}; it has {_short(max(shape))}")
    if not 1 <= len(shape) <= MAX_DIMENSIONS:
        raise InputError(f"input {name!r}: shape must have 1 to {MAX_DIMENSIONS} dimensions; it has {len(shape)}")
    return tuple(shape)


def from_json(name: str, data: Any, datatype: Any, shape: tuple[int, ...]) -> Array:
    """Numbers in row-major order, flat or nested, as an array of `shape`.

    Whole numbers may stand for floats, never the other way round; nothing is rounded, wrapped or read from text.
    Raises InputError, one sentence with the name of the input.
    """
    dtype = dtype_of(name, datatype)
    values = _flat(name, data)
    _check_count(name, shape, len(values), f"data has {len(values)}")
    types, words = _JSON_TYPES[dtype.kind]
    # checked before numpy sees them: one long text among many numbers would make it allocate for all of them
    if wrong := set(map(type, values)) - types:
        raise InputError(f"input {name!r}: {datatype} must be {words}, not {wrong.pop().__name__}")
    try:
        with np.errstate(over="ignore"):  # a number too large for the dtype becomes infinite, which is refused next
            array = np.array(values, dtype).reshape(shape)
    except OverflowError as error:
        worst = max(values, key=abs)
        raise InputError(f"input {name!r}: {_short(worst)} is out of range of {datatype}") from error
    return check_finite(name, array)


def _flat(name: str, data: Any) -> list[Any]:
    """Nested lists as one, in row-major order. InputError if they are ragged."""
    if not isinstance(data, list):
        raise InputError(f"input {name!r}: data must be a list of numbers, not {_short(data)}")
    values: list[Any] = data
    for _ in range(MAX_DIMENSIONS):
        if not values or not isinstance(values[0], list):
            return values
        if any(not isinstance(each, list) or len(each) != len(values[0]) for each in values):
            raise InputError(f"input {name!r}: data is ragged")
        values = list(itertools.chain.from_iterable(values))
    raise InputError(f"input {name!r}: data is nested more than {MAX_DIMENSIONS} deep")


def from_raw(name: str, raw: memoryview, datatype: Any, shape: tuple[int, ...]) -> Array:
    """Raw little-endian bytes in row-major order as an array of `shape`: a read-only view, nothing is copied."""
    dtype = dtype_of(name, datatype)
    size = 2 if datatype == BF16 else dtype.itemsize
    _check_count(name, shape, len(raw) / size, f"{len(raw)} bytes were sent")
    array = np.frombuffer(raw, np.uint8)
    if datatype == BF16:
        halves = array.view("<u2").astype("<u4")
        return check_finite(name, (halves << 16).view(dtype).reshape(shape))
    if dtype.kind == "b" and array.size and array.max() > 1:
        raise InputError(f"input {name!r}: a BOOL is one byte, 0 or 1")
    return check_finite(name, array.view(dtype).reshape(shape))


def check_finite(name: str, array: Array, what: str = "NaN or an infinite number") -> Array:
    """The array itself. InputError, with the place of the first, if it holds NaN or an infinity."""
    if array.dtype.kind == "f" and np.count_nonzero(np.isfinite(array)) < array.size:
        place = [int(index) for index in np.argwhere(~np.isfinite(array))[0]]
        raise InputError(f"input {name!r}: holds {what} at {place}")
    return array


def as_float(name: str, array: Array, dtype: np.dtype[Any]) -> Array:
    """Finite floats as those of another width. InputError about one that is out of its range."""
    if array.dtype == dtype:
        return array
    with np.errstate(over="ignore"):
        converted = array.astype(dtype)
    return check_finite(name, converted, f"a number that is out of range of {datatype_of(converted)}")


def to_raw(array: Array) -> bytes:
    return np.ascontiguousarray(array).astype(DATATYPES[datatype_of(array)], copy=False).tobytes()


def _check_count(name: str, shape: tuple[int, ...], count: float, sent: str) -> None:
    expected = math.prod(shape)  # of Python's integers: no size overflows
    if expected != count:
        raise InputError(f"input {name!r}: shape {list(shape)} needs {expected} elements; {sent}")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
