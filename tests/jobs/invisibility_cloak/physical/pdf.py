"""A reader of the few parts of a PDF that say how large what is drawn will be: independent of what wrote it."""

import io
import re
import struct
import zlib
from dataclasses import dataclass

import numpy as np
import PIL.Image

POINT = 25.4 / 72  # millimetres
NUMBER = rb"-?\d+(?:\.\d+)?"


@dataclass(frozen=True)
class Image:
    """left, top, width, height: in millimetres from the upper left corner of the page."""

    left: float
    top: float
    width: float
    height: float
    pixels: np.ndarray
    """uint8 (rows, columns, 3); of an image with a palette zeros"""
    clips: tuple[tuple[float, float, float, float], ...]
    """rectangles that were in force: left, top, width, height"""


@dataclass(frozen=True)
class Page:
    width: float
    height: float
    images: tuple[Image, ...]
    squares: tuple[tuple[float, float, float, tuple[float, float, float]], ...]
    """filled: centre x, centre y, side, colour in [0, 1]"""


def pages(content: bytes) -> list[Page]:
    """All pages of a PDF whose objects follow each other, none within a stream."""
    objects = dict(re.findall(rb"(?s)(\d+) 0 obj\s(.*?)\sendobj", content))
    found = []
    for body in objects.values():
        if re.search(rb"/Type /Page\b(?!s)", body):
            found.append(_page(objects, body))
    return found


def _stream(body: bytes) -> bytes:
    data = re.search(rb"(?s)stream\r?\n(.*?)\r?\nendstream", body)
    assert data is not None
    return zlib.decompress(data[1]) if b"/FlateDecode" in body else data[1]


def _pixels(body: bytes) -> np.ndarray:
    """An image of 8 bits a colour whose rows are predicted as those of PNG: it is made a PNG again."""
    across, down = (int(re.search(rb"/%s (\d+)" % key, body)[1]) for key in (b"Width", b"Height"))  # type: ignore[index]
    if b"/Indexed" in body:
        return np.zeros((down, across, 3), np.uint8)
    data = re.search(rb"(?s)stream\r?\n(.*?)\r?\nendstream", body)
    assert data is not None and b"/Predictor 10" in body and b"/Colors 3" in body
    parts = [(b"IHDR", struct.pack(">IIBBBBB", across, down, 8, 2, 0, 0, 0)), (b"IDAT", data[1]), (b"IEND", b"")]
    chunks = [
        struct.pack(">I", len(part)) + name + part + struct.pack(">I", zlib.crc32(name + part)) for name, part in parts
    ]
    return np.asarray(PIL.Image.open(io.BytesIO(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))).convert("RGB"))


def _reference(objects: dict[bytes, bytes], body: bytes, name: bytes) -> bytes:
    found = re.search(rb"/" + name + rb" (\d+) 0 R", body)
    assert found is not None
    return objects[found[1]]


def _page(objects: dict[bytes, bytes], body: bytes) -> Page:
    box = re.search(rb"/MediaBox \[ ?(%s) (%s) (%s) (%s) ?\]" % ((NUMBER,) * 4), body)
    assert box is not None and float(box[1]) == float(box[2]) == 0
    width, height = float(box[3]) * POINT, float(box[4]) * POINT
    every = re.findall(rb"/(I\d+) (\d+) 0 R", b" ".join(objects.values()))
    pixels = {name: _pixels(objects[number]) for name, number in every}
    images, squares = [], []
    stack: list[tuple[np.ndarray, tuple[tuple[float, float, float, float], ...], tuple[float, float, float]]] = []
    matrix, clips, colour = np.eye(3), (), (0.0, 0.0, 0.0)
    path: list[tuple[float, float]] = []
    operands: list[bytes] = []
    clipping = False

    def placed(points: np.ndarray) -> np.ndarray:
        ends = np.concatenate([points, np.ones((len(points), 1))], 1) @ matrix
        return np.stack([ends[:, 0] * POINT, height - ends[:, 1] * POINT], 1)

    for token in _stream(_reference(objects, body, b"Contents")).split():
        if re.fullmatch(NUMBER, token) or token.startswith(b"/"):
            operands.append(token)
            continue
        values = [float(each) for each in operands if not each.startswith(b"/")]
        if token == b"q":
            stack.append((matrix, clips, colour))
        elif token == b"Q":
            matrix, clips, colour = stack.pop()
        elif token == b"cm":
            a, b, c, d, e, f = values
            matrix = np.array([[a, b, 0], [c, d, 0], [e, f, 1]]) @ matrix
        elif token in (b"rg", b"g"):
            colour = (values[0], values[-2] if token == b"rg" else values[0], values[-1])
        elif token in (b"m", b"l"):
            path.append((values[0], values[1]))
        elif token == b"re":
            x, y, w, h = values
            path += [(x, y), (x + w, y), (x + w, y + h), (x, y + h)]
        elif token == b"W":
            clipping = True
        elif token == b"Do" and operands[0][1:] in pixels:
            corners = placed(np.array([[0.0, 1.0], [1.0, 0.0]]))  # of the first row the first, of the last the last
            flips = [1 if first < last else -1 for first, last in corners.T]
            shown = pixels[operands[0][1:]][:: flips[1], :: flips[0]]
            (left, top), (right, bottom) = corners.min(0), corners.max(0)
            images.append(Image(left, top, right - left, bottom - top, shown, clips))
        elif token in (b"f", b"n", b"S", b"B", b"s", b"b", b"f*", b"B*"):
            if path:
                corners = placed(np.array(path))
                low, high = corners.min(0), corners.max(0)
                if clipping:
                    clips = (*clips, (low[0], low[1], high[0] - low[0], high[1] - low[1]))
                elif token == b"f" and abs(np.ptp(high - low)) < 1e-3:
                    squares.append((*((low + high) / 2), high[0] - low[0], colour))
            path, clipping = [], False
        operands = []
    return Page(width, height, tuple(images), tuple(squares))
