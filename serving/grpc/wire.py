"""The fields of a message of protobuf, before any of it is parsed: a parsed message may take 50 times its bytes.

Source: protobuf.dev, "Encoding".
"""

from collections.abc import Iterator

from service.errors import InputError

LENGTH_DELIMITED = 2  # the type of strings, bytes and messages
LONGEST_NUMBER = 10  # bytes of a number of 64 bits


def fields(data: bytes) -> Iterator[tuple[int, memoryview]]:
    """The number and the contents of each field, in their order, of a message of strings, bytes and messages alone.

    InputError about one that is not of this form.
    """
    view, place = memoryview(data), 0
    while place < len(view):
        tag, place = _number(view, place)
        length, place = _number(view, place)
        if tag & 7 != LENGTH_DELIMITED or place + length > len(view):
            raise InputError("the message is not valid: it is cut off, or of another type")
        yield tag >> 3, view[place : place + length]
        place += length


def text_field(number: int, text: str) -> bytes:
    """A field of text, as it is written."""
    contents = text.encode()
    return _written(number << 3 | LENGTH_DELIMITED) + _written(len(contents)) + contents


def _written(value: int) -> bytes:
    parts = bytearray()
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def _number(view: memoryview, place: int) -> tuple[int, int]:
    """A number, seven bits a byte, the lowest first; and where the next field begins."""
    value = 0
    for shift, byte in enumerate(view[place : place + LONGEST_NUMBER]):
        value |= (byte & 0x7F) << 7 * shift
        if byte < 0x80:
            return value, place + shift + 1
    raise InputError("the message is not valid: it is cut off, or of another type")
