"""The numbers of a checkpoint of TensorFlow, read as data, without TensorFlow.

A checkpoint is a table of names (.index) and a file of numbers (.data-00000-of-00001). Sources: "Leveldb file layout"
(table_format.md: blocks of entries whose keys share a beginning with the one before), and TensorFlow's
tensor_bundle.proto (what an entry says of a tensor).
"""

from collections.abc import Iterator
from math import prod
from pathlib import Path

import numpy as np

from service.errors import InputError

FOOTER = 48  # bytes
MAGIC = bytes.fromhex("57fb808b247547db")
FLOAT = 1  # the type float32 in an entry
TRAILER = 5  # bytes after a block: how it is compressed, and its checksum


def read(index: Path, data: Path) -> dict[str, np.ndarray]:
    """All float32 tensors by their names. InputError if one of the files is something else or is damaged."""
    table, numbers = index.read_bytes(), data.read_bytes()
    if len(table) < FOOTER or not table.endswith(MAGIC):
        raise InputError(f"{index.name} must be the table of a TensorFlow checkpoint (.index); it is something else")
    try:
        return dict(_tensors(table, numbers))
    except (ValueError, IndexError, UnicodeDecodeError) as error:
        raise InputError(f"{index.name} and {data.name} are damaged: {error}") from error


def _tensors(table: bytes, numbers: bytes) -> Iterator[tuple[str, np.ndarray]]:
    _, place = _handle(table, len(table) - FOOTER)  # of other facts, of which there are none
    root, _ = _handle(table, place)
    for _, handle in _entries(_block(table, root)):
        block, _ = _handle(handle, 0)
        for name, entry in _entries(_block(table, block)):
            fields = dict(_fields(entry))
            if not name or fields.get(1) != FLOAT:
                continue  # the header, counters
            shape = [_integer(dict(_fields(_bytes(side))).get(1, 0)) for _, side in _fields(_bytes(fields.get(2, b"")))]
            offset, size = _integer(fields.get(4, 0)), _integer(fields.get(5, 0))
            if fields.get(3, 0) != 0 or size != 4 * prod(shape) or offset + size > len(numbers):
                raise ValueError(f"{name.decode()!r} of shape {shape} is not in the file of numbers")
            yield name.decode(), np.frombuffer(numbers, "<f4", prod(shape), offset).reshape(shape)


def _block(table: bytes, handle: tuple[int, int]) -> bytes:
    offset, size = handle
    if offset + size + TRAILER > len(table):
        raise ValueError("a block goes beyond the end")
    if table[offset + size] != 0:
        raise ValueError("a block is compressed")
    return table[offset : offset + size]


def _entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a block. At its end are 4 bytes for each place where keys begin anew, and their number."""
    restarts = int.from_bytes(block[-4:], "little")
    end, place, key = len(block) - 4 * (restarts + 1), 0, b""
    while place < end:
        shared, place = _varint(block, place)
        own, place = _varint(block, place)
        size, place = _varint(block, place)
        key = key[:shared] + block[place : place + own]
        yield key, block[place + own : place + own + size]
        place += own + size


def _handle(data: bytes, place: int) -> tuple[tuple[int, int], int]:
    """Offset and size of a block, and where its handle ends."""
    offset, place = _varint(data, place)
    size, place = _varint(data, place)
    return (offset, size), place


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field of a protocol buffer."""
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        kind, value = tag & 7, b""
        if kind == 0:
            number, place = _varint(message, place)
            yield tag >> 3, number
            continue
        if kind == 2:
            size, place = _varint(message, place)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"a field of kind {kind}")
        value, place = message[place : place + size], place + size
        yield tag >> 3, value


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """A number of 7 bits a byte, and where it ends."""
    value = 0
    for index in range(10):
        byte = data[place + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, place + index + 1
    raise ValueError("a number of more than 10 bytes")


def _integer(value: int | bytes) -> int:
    if isinstance(value, bytes):
        raise ValueError("a number is a text")
    return value


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("a text is a number")
    return value
