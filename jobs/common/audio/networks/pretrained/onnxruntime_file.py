"""The constants and the operations of a network in onnxruntime's own format, read as data: nothing in it is run.

The file is a flatbuffer: tables whose fields are found through a list of offsets, each as far as the file goes.
Sources: the schema core/flatbuffers/schema/ort.fbs of onnxruntime (names and numbers of the fields), and "FlatBuffers
Internals" (how they are laid out).
"""

import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from service.errors import InputError

IDENTIFIER = b"ORTM"
TYPES = {1: np.float32, 2: np.uint8, 3: np.int8, 6: np.int32, 7: np.int64, 9: np.bool_}
"""numpy's, by the schema's number"""


@dataclass(frozen=True)
class Operation:
    """One operation of the graph: what it is, and the names of what goes in and comes out."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class OrtNetwork:
    """A network as the file has it."""

    constants: dict[str, np.ndarray]
    operations: tuple[Operation, ...]


def read(path: Path) -> OrtNetwork:
    """InputError if the file is not of this format or is damaged."""
    data = path.read_bytes()
    if data[4:8] != IDENTIFIER:
        raise InputError(f"{path.name} must be a network of onnxruntime (.ort); it is something else")
    try:
        graph = _Table(data, _unsigned(data, 0)).table(1).table(7)  # session.model.graph
        constants = dict(map(_constant, graph.tables(0)))
        operations = sorted(graph.tables(2), key=lambda node: node.integer(4, "<I"))
        return OrtNetwork(constants, tuple(map(_operation, operations)))
    except (struct.error, ValueError, UnicodeDecodeError) as error:
        raise InputError(f"{path.name} is damaged: {error}") from error


def _constant(tensor: "_Table") -> tuple[str, np.ndarray]:
    kind = tensor.integer(3, "<i")
    shape = [int(side) for side in np.frombuffer(tensor.content(2, 8), "<i8")]
    if kind not in TYPES or any(side < 0 for side in shape):
        return tensor.text(0), np.zeros(0)  # texts, and numbers that no layer is made of
    content = np.frombuffer(tensor.content(4, 1), np.dtype(TYPES[kind]))
    if prod(shape) != len(content):
        raise ValueError(f"{tensor.text(0)!r} of shape {shape} holds {len(content)} numbers")
    return tensor.text(0), content.reshape(shape)


def _operation(node: "_Table") -> Operation:
    return Operation(node.text(5), node.text(0), tuple(node.texts(8)), tuple(node.texts(9)))


class _Table:
    """A table of a flatbuffer. Fields are asked for by their number in the schema; one that is absent is empty."""

    def __init__(self, data: bytes, place: int) -> None:
        self._data, self._place = data, place
        self._offsets = place - int(_unpack("<i", data, place))

    def _field(self, number: int) -> int | None:
        """Where a field is."""
        entry = 4 + 2 * number
        if entry + 2 > int(_unpack("<H", self._data, self._offsets)):
            return None
        offset = int(_unpack("<H", self._data, self._offsets + entry))
        return self._place + offset if offset else None

    def integer(self, number: int, form: str) -> int:
        place = self._field(number)
        return 0 if place is None else int(_unpack(form, self._data, place))

    def table(self, number: int) -> "_Table":
        place = self._field(number)
        if place is None:
            raise ValueError(f"a table lacks field {number}")
        return _Table(self._data, place + _unsigned(self._data, place))

    def content(self, number: int, size: int) -> bytes:
        """The bytes of a text or of a list of numbers of some size each."""
        place = self._field(number)
        return b"" if place is None else _listed(self._data, place + _unsigned(self._data, place), size)

    def text(self, number: int) -> str:
        return self.content(number, 1).decode()

    def tables(self, number: int) -> list["_Table"]:
        return [_Table(self._data, place) for place in self._places(number)]

    def texts(self, number: int) -> list[str]:
        return [_listed(self._data, place, 1).decode() for place in self._places(number)]

    def _places(self, number: int) -> list[int]:
        """Where the members of a list are."""
        place = self._field(number)
        if place is None:
            return []
        start = place + _unsigned(self._data, place)
        offsets = np.frombuffer(_listed(self._data, start, 4), "<u4").tolist()
        return [start + 4 + 4 * index + offset for index, offset in enumerate(offsets)]


def _listed(data: bytes, place: int, size: int) -> bytes:
    """The members of a list: their number comes first."""
    start, length = place + 4, _unsigned(data, place) * size
    if start + length > len(data):
        raise ValueError("a list goes beyond the end")
    return data[start : start + length]


def _unsigned(data: bytes, place: int) -> int:
    return int(_unpack("<I", data, place))


def _unpack(form: str, data: bytes, place: int) -> int:
    if place < 0:  # which Python would count from the end
        raise ValueError("a table begins before the file")
    value: int = struct.unpack_from(form, data, place)[0]
    return value
