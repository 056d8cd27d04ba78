"""JSON that loses nothing: numbers that it does not have, and any text.

JSON knows no NaN and no infinity. Here they are the texts "NaN", "Infinity" and "-Infinity", and a text that reads like
one of these gets an apostrophe before it, so that `loads` gives back what `dumps` was given. Halves of surrogate pairs,
as names of files may hold, are escaped.
"""

import json
import math
import re
from functools import cache
from typing import Any

_NUMBERS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_ALIKE = re.compile(r"'*(?:NaN|-?Infinity)")
_MARKED = re.compile("NaN|Infinity")  # in a JSON text without it there is nothing to do


def dumps(value: Any, *, marked: bool = True, **form: Any) -> str:
    """Plain values (numbers, text, bools, None, lists, tuples and dicts of them) as JSON.

    marked: whether texts that read like a number which JSON lacks get their apostrophe; without it the JSON is for
    readers who only show it. form: passed on to `json.dumps`. TypeError or ValueError: the value is not plain.
    """
    text = _encoder(**form).encode(value)
    if not _MARKED.search(text):
        return text
    return _encoder(allow_nan=False, **form).encode(_pack(value, marked))


@cache
def _encoder(**form: Any) -> json.JSONEncoder:
    """json.dumps makes one anew each time."""
    return json.JSONEncoder(**form)


def loads(text: str | bytes) -> Any:
    """What `dumps` was given: tuples as lists, keys as text. ValueError or RecursionError: not JSON."""
    if isinstance(text, bytes):
        text = text.decode(json.detect_encoding(text), "surrogatepass")
    value = json.loads(text)
    return _unpack(value) if _MARKED.search(text) else value


def plain(value: Any) -> Any:
    """The value as `loads` would give it back. ValueError if it is not plain."""
    try:
        return loads(dumps(value))
    except (TypeError, RecursionError) as error:
        raise ValueError(f"not plain JSON: {error}") from error


def _pack(value: Any, marked: bool) -> Any:
    match value:
        case float() if not math.isfinite(value):
            return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        case str() if marked and _ALIKE.fullmatch(value):
            return f"'{value}"
        case dict():
            return {key: _pack(inner, marked) for key, inner in value.items()}
        case list() | tuple():
            return [_pack(inner, marked) for inner in value]
    return value


def _unpack(value: Any) -> Any:
    match value:
        case str() if _ALIKE.fullmatch(value):
            return value[1:] if value[0] == "'" else _NUMBERS[value]
        case dict():
            return {key: _unpack(inner) for key, inner in value.items()}
        case list():
            return [_unpack(inner) for inner in value]
    return value
