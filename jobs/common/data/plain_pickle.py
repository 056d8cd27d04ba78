"""Pickles of plain data and arrays of whole numbers, read without trusting them.

Loading a pickle calls whatever it names, so `pickle.load` runs a stranger's code. Published data sets are pickles all
the same. What these need is little: numbers, strings, lists, dictionaries, and the few names by which numpy rebuilds an
array. Here every instruction is looked at before any is carried out, objects of our own answer to these names, and
numpy's unpickling is never called.
"""

import io
import math
import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np

from service.errors import InputError

LARGEST = 512 << 20  # bytes of a file; the largest published one has 155 million
MOST_TUPLES = 100  # an array takes six; bounds how deep they nest, which a hash of them would follow

# numbers, strings, lists, dictionaries, tuples, the memo, and calling what a name stands for
_PLAIN = """
    PROTO FRAME STOP MARK POP POP_MARK DUP NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1
    STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8 UNICODE BINUNICODE SHORT_BINUNICODE
    LIST EMPTY_LIST APPEND APPENDS DICT EMPTY_DICT SETITEM SETITEMS TUPLE EMPTY_TUPLE TUPLE1 TUPLE2 TUPLE3
    PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET LONG_BINGET GLOBAL STACK_GLOBAL REDUCE BUILD
"""
ALLOWED = frozenset(_PLAIN.split())
WHOLE_NUMBERS = ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")


class _Kind:
    """In place of a numpy data type of whole numbers."""

    def __init__(self, code: Any, *_: Any) -> None:
        text = code.decode("latin1") if isinstance(code, bytes) else code
        if text not in WHOLE_NUMBERS:
            raise ValueError(f"it holds an array of {text!r}, whole numbers are allowed")
        self.dtype = np.dtype(text)

    def __setstate__(self, state: Any) -> None:
        if state[1] in (">", b">"):
            self.dtype = self.dtype.newbyteorder(">")


class _Array:
    """In place of a numpy array, or of one of its numbers, and of the calls that rebuild one."""

    def __init__(self, kind: Any = None, data: Any = b"", shape: Any = ()) -> None:
        self._kind, self._data, self._shape = kind, data, shape

    def __setstate__(self, state: Any) -> None:  # version, shape, kind, whether columns come first, data
        _, self._shape, self._kind, column_major, self._data = state
        if column_major:
            raise ValueError("an array is not one of rows, one after another")

    def values(self) -> np.ndarray:
        """The array, read-only."""
        kind, data, shape = self._kind, self._data, self._shape
        if not isinstance(kind, _Kind) or type(data) not in (bytes, bytearray) or type(shape) is not tuple:
            raise ValueError("an array is not one of whole numbers")
        if not all(type(side) is int and side >= 0 for side in shape):
            raise ValueError(f"an array has the shape {shape}")
        if math.prod(shape) * kind.dtype.itemsize != len(data):
            raise ValueError(f"an array of {shape} has {len(data):,} bytes")
        return np.frombuffer(bytes(data), kind.dtype).reshape(shape)


def _empty(*_: Any) -> _Array:
    return _Array()


def _from_buffer(data: Any, kind: Any, shape: Any, order: Any) -> _Array:
    if order != "C":
        raise ValueError("an array is not one of rows, one after another")
    return _Array(kind, data, shape)


def _encoded(text: Any, encoding: Any) -> bytes:
    """In place of codecs.encode: how bytes were written before pickles had them."""
    if type(text) is not str or encoding not in ("latin1", b"latin1"):
        raise ValueError(f"it encodes text as {encoding!r}")
    return text.encode("latin1")


REPLACEMENTS: dict[str, Any] = {
    "numpy.ndarray": _Array,
    "numpy.dtype": _Kind,
    "multiarray._reconstruct": _empty,
    "multiarray.scalar": _Array,
    "numeric._frombuffer": _from_buffer,
    "_codecs.encode": _encoded,
}
"""what answers to a name; of numpy's own modules without the part that changed with its versions"""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        known = f"{module.removeprefix('numpy.core.').removeprefix('numpy._core.')}.{name}"
        if known not in REPLACEMENTS:
            raise ValueError(f"it asks for {module}.{name}, which plain data never do")
        return REPLACEMENTS[known]


def read_pickle(file: Path) -> Any:
    """What a file of plain data holds, as `parse_pickle`. InputError, naming the file, if it cannot be parsed."""
    try:
        if (size := file.stat().st_size) > LARGEST:
            raise ValueError(f"it must have at most {LARGEST:,} bytes; it has {size:,}")
        return parse_pickle(file.read_bytes())
    except FileNotFoundError as error:
        raise InputError(f"there is no file {str(file)!r}") from error
    except Exception as error:  # a hostile pickle can make the loader raise anything
        raise InputError(f"{str(file)!r} is not a pickle of plain data: {error}") from error


def parse_pickle(data: bytes, most_tuples: int = MOST_TUPLES) -> Any:
    """What a pickle of plain data holds; its strings are bytes if Python 2 wrote it, its arrays read-only.

    Raises ValueError and much else if it is damaged, or asks for anything beyond plain data.
    """
    _inspect(data, most_tuples)
    return _plain(_Unpickler(io.BytesIO(data), encoding="bytes").load(), made={})


def _inspect(data: bytes, most_tuples: int) -> None:
    """ValueError if an instruction is not allowed, or if carrying it out could take memory out of all proportion."""
    puts = tuples = 0
    for instruction, argument, _ in pickletools.genops(data):
        name = instruction.name
        if name not in ALLOWED:
            raise ValueError(f"it has the instruction {name}, which plain data never do")
        if name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            # the memo is an array as long as the largest number in it; those who write one count up
            if argument is not None and argument > puts + 1:
                raise ValueError(f"it puts entry {argument} into a memo of {puts}")
            puts += 1
        tuples += "TUPLE" in name
    if tuples > most_tuples:
        raise ValueError(f"it must have at most {most_tuples:,} tuples; it has {tuples:,}")


def _plain(content: Any, made: dict[int, Any]) -> Any:
    """The content with numpy's arrays for what is in place of them. ValueError if it holds what is no plain data.

    made: what came of each part, by its identity: lists of one list twice, and so on, would double with each.
    """
    if id(content) not in made:
        made[id(content)] = _made_plain(content, made)
    return made[id(content)]


def _made_plain(content: Any, made: dict[int, Any]) -> Any:
    match content:
        case _Array():
            return content.values()
        case dict():
            return {key: _plain(value, made) for key, value in content.items()}
        case list() | tuple():
            return type(content)(_plain(each, made) for each in content)
        case None | bool() | int() | str() | bytes() | bytearray():
            return content
    raise ValueError(f"it holds a {type(content).__name__}, which plain data never do")
