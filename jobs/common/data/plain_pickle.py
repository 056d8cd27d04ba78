"""Pickles of plain data and arrays of bytes, read without trusting them.

Loading a pickle calls whatever it names, so `pickle.load` runs a stranger's code. Published data sets are pickles all
the same. What these need is little: numbers, strings, lists, dictionaries, and three names by which numpy rebuilds an
array. Here every instruction is looked at before any is carried out, stand-ins of our own answer to the three names,
and numpy's unpickling is never called.
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
MAX_TUPLES = 100  # an array takes six; bounds how deep they nest

# numbers, strings, lists, dictionaries, tuples, the memo, and calling what a name stands for
_PLAIN = """
    PROTO FRAME STOP MARK POP POP_MARK DUP NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG1
    STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8 UNICODE BINUNICODE SHORT_BINUNICODE
    LIST EMPTY_LIST APPEND APPENDS DICT EMPTY_DICT SETITEM SETITEMS TUPLE EMPTY_TUPLE TUPLE1 TUPLE2 TUPLE3
    PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET LONG_BINGET GLOBAL STACK_GLOBAL REDUCE BUILD
"""
ALLOWED = frozenset(_PLAIN.split())


class _Bytes:
    """Stands for a numpy array, and for the call that rebuilds one."""

    def __init__(self, *_: Any) -> None:
        self.values: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, column_major, data = state
        if not isinstance(kind, _Kind) or kind.code not in ("u1", b"u1") or column_major or type(data) is not bytes:
            raise ValueError("an array is not one of unsigned bytes, row by row")
        if not all(type(side) is int and side >= 0 for side in shape) or math.prod(shape) != len(data):
            raise ValueError(f"an array of {shape} has {len(data):,} bytes")
        self.values = np.frombuffer(data, np.uint8).reshape(shape)


class _Kind:
    """Stands for a numpy data type: its code is all that is of interest."""

    def __init__(self, code: Any, *_: Any) -> None:
        self.code = code

    def __setstate__(self, state: Any) -> None:
        pass


STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _Bytes,
    ("numpy._core.multiarray", "_reconstruct"): _Bytes,
    ("numpy", "ndarray"): _Bytes,
    ("numpy", "dtype"): _Kind,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in STAND_INS:
            raise ValueError(f"it asks for {module}.{name}, which plain data never do")
        return STAND_INS[module, name]


def read_pickle(file: Path) -> Any:
    """What a pickle of plain data holds; its strings are bytes if Python 2 wrote it, its arrays uint8 and read-only.

    InputError, naming the file, if there is none, if it is damaged, or if it wants anything beyond plain data.
    """
    try:
        if (size := file.stat().st_size) > LARGEST:
            raise ValueError(f"it has {size:,} bytes, at most {LARGEST:,} are allowed")
        data = file.read_bytes()
        _inspect(data)
        return _arrays(_Unpickler(io.BytesIO(data), encoding="bytes").load())
    except FileNotFoundError as error:
        raise InputError(f"there is no file {str(file)!r}") from error
    except Exception as error:  # a hostile pickle can make the loader raise anything
        raise InputError(f"{str(file)!r} is not a pickle of plain data: {error}") from error


def _inspect(data: bytes) -> None:
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
    if tuples > MAX_TUPLES:
        raise ValueError(f"it has {tuples} tuples, at most {MAX_TUPLES} are allowed")


def _arrays(content: Any) -> Any:
    """The content with arrays for what stands for them: in a dictionary or on its own."""
    if isinstance(content, dict):
        return {key: _arrays(value) if isinstance(value, _Bytes) else value for key, value in content.items()}
    return content.values if isinstance(content, _Bytes) else content
