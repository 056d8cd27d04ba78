"""Generated scenes: one to three persons among trees and plain shapes, before a ground of coloured noise.

What persons wear is drawn at random: plain, striped or checked, so that a detector cannot know them by it alone. A
scene depends on its split and its number alone.
"""

import hashlib
from collections.abc import Callable
from functools import cache, cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from jobs.common.data.boxes.base import Source
from jobs.common.data.sets import Split
from jobs.common.detection.boxes import Boxes
from service.errors import FieldError

CLASSES = ("person", "tree")
COUNTS = {"train": 1500, "test": 200}
SEEDS = {"train": 0, "test": 1}
FINER = 2  # pixels in which shapes are drawn, for each pixel of the scene
HEIGHTS = (0.36, 0.75)  # of persons and trees, in sides of the scene
PERSONS, TREES, SHAPES = (1, 3), (0, 2), (1, 4)  # the fewest and the most of a scene
COMMON = 0.15  # intersection over union up to which two boxes of a scene overlap
TRIES = 12  # places that are drawn for an object, until it does not hide another
SMALLEST = 32
TOLD = 8  # scenes of which the digest is made

Point = tuple[float, float]
Colour = tuple[int, ...]
Draw = ImageDraw.ImageDraw


class Scenes:
    """A set of scenes, drawn when they are first asked for: a BoxSet."""

    name = "scenes"
    classes = CLASSES
    boxed_by: str | None = "the program that drew the scenes"
    remarks: tuple[str, ...] = ()

    def __init__(self, split: Split, side: int = 96, count: int | None = None) -> None:
        """side: of a scene, in pixels. count: of scenes; None: 1,500 to train, 200 to test. FieldError."""
        if side < SMALLEST:
            raise FieldError("side", f"be at least {SMALLEST}, below which persons have no limbs", side)
        self.side = side
        self._split, self._count = split, COUNTS[split] if count is None else count
        self._drawn: dict[int, tuple[Tensor, Boxes]] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        """A worker that is sent the set draws it itself."""
        return scenes, (self._split, self.side, self._count)

    def __len__(self) -> int:
        return self._count

    @cached_property
    def digest(self) -> str:
        """Of what the scenes depend on, and of the first of them, which tells how they are drawn."""
        digest = hashlib.sha256(f"scenes {self._split} {self.side} {self._count}".encode())
        for place in range(min(TOLD, self._count)):
            image, boxes = self._scene(place)
            digest.update(image.numpy().data)
            digest.update(boxes.corners.numpy().data)
        return digest.hexdigest()

    def images(self, places: Tensor) -> Tensor:
        """places: int64 (k,). Returns float32 (k, 3, side, side) in [0, 1]."""
        images = [self._scene(place)[0] for place in places.tolist()]
        return torch.stack(images).permute(0, 3, 1, 2).contiguous().float() / 255

    def boxes(self, place: int) -> Boxes:
        """The boxes of one scene."""
        return self._scene(place)[1]

    def _scene(self, place: int) -> tuple[Tensor, Boxes]:
        """uint8 (side, side, 3), and its boxes. IndexError if there is none."""
        if not 0 <= place < self._count:
            raise IndexError(place)
        if place not in self._drawn:
            image, boxes = scene(self._split, place, self.side)
            self._drawn[place] = torch.from_numpy(image), boxes
        return self._drawn[place]


@cache  # trials and cells of a process ask for the same scenes
def scenes(split: Split, side: int = 96, count: int | None = None) -> Scenes:
    """The scenes of a split; those of a smaller count are the first ones of a larger."""
    return Scenes(split, side, count)


def scene(split: Split, number: int, side: int) -> tuple[np.ndarray, Boxes]:
    """One scene: uint8 (side, side, 3), and its boxes."""
    stream = np.random.default_rng((SEEDS[split], number))
    image = _ground(stream, side * FINER)
    draw = ImageDraw.Draw(image)
    for _ in range(_between(stream, SHAPES)):
        _shape(draw, stream, side)
    corners: list[list[float]] = []
    labels: list[int] = []
    others = [0] * (_between(stream, PERSONS) - 1) + [1] * _between(stream, TREES)
    for label in [0, *stream.permutation(others).astype(int).tolist()]:
        height = float(stream.uniform(*HEIGHTS)) * side
        width = height * float(stream.uniform(0.32, 0.46))
        placed = _placed(stream, side, width, height, corners)
        if placed is None:
            continue  # there is no room; the first, always a person, has
        left, top = placed
        figure: Callable[..., None] = _person if label == 0 else _tree
        figure(draw, stream, left, top, width, height)
        corners.append([left, top, left + width, top + height])
        labels.append(label)
    small = np.asarray(image.reduce(FINER), np.float32) + stream.normal(0, 4, (side, side, 3))
    boxes = Boxes(torch.tensor(corners, dtype=torch.float32), torch.tensor(labels, dtype=torch.int64))
    return small.clip(0, 255).round().astype(np.uint8), boxes


def _between(stream: np.random.Generator, ends: tuple[int, int]) -> int:
    return int(stream.integers(ends[0], ends[1] + 1))


def _ground(stream: np.random.Generator, side: int) -> Image.Image:
    """Noise, smooth over about a sixth of the side, more or less coloured."""
    coarse = _paler(stream.uniform(30, 226, (6, 6, 3)), float(stream.uniform()))
    return Image.fromarray(coarse.round().astype(np.uint8)).resize((side, side), Image.Resampling.BICUBIC)


def _colour(stream: np.random.Generator) -> Colour:
    """From grey to bright: a plain grey patch is then nothing that no person wears."""
    return tuple(int(part) for part in _paler(stream.uniform(0, 256, 3), float(stream.uniform())))


def _paler(colours: np.ndarray, saturation: float) -> np.ndarray:
    """Colours (..., 3), between their own grey (saturation 0) and themselves (1)."""
    grey = colours.mean(-1, keepdims=True)
    mixed: np.ndarray = grey + saturation * (colours - grey)
    return mixed


def _scaled(points: list[Point]) -> list[Point]:
    return [(across * FINER, down * FINER) for across, down in points]


def _shape(draw: Draw, stream: np.random.Generator, side: int) -> None:
    """A rectangle, an ellipse or a triangle that is no object."""
    width, height = stream.uniform(0.08, 0.4, 2) * side
    left, top = stream.uniform(-0.1, 0.95, 2) * side
    ends, colour = _scaled([(left, top), (left + width, top + height)]), _colour(stream)
    match int(stream.integers(3)):
        case 0:
            draw.rectangle(ends, fill=colour)
        case 1:
            draw.ellipse(ends, fill=colour)
        case _:
            tip = left + width * float(stream.uniform())
            draw.polygon(_scaled([(tip, top), (left + width, top + height), (left, top + height)]), fill=colour)


def _placed(
    stream: np.random.Generator, side: int, width: float, height: float, others: list[list[float]]
) -> Point | None:
    """The upper left corner of a box that hides no other; None if none of some draws is one."""
    for left, top in stream.uniform(0, (side - width, side - height), (TRIES, 2)).tolist():
        box = [left, top, left + width, top + height]
        if all(_overlap(box, other) <= COMMON for other in others):
            return left, top
    return None


def _overlap(ours: list[float], theirs: list[float]) -> float:
    """Intersection over union of two boxes, in plain numbers: a tensor for each takes longer than the drawing."""
    low, high = map(max, ours[:2], theirs[:2]), map(min, ours[2:], theirs[2:])
    across, down = (max(0.0, end - start) for start, end in zip(low, high, strict=True))
    both = sum((right - left) * (bottom - top) for left, top, right, bottom in (ours, theirs))
    return across * down / (both - across * down)


def _person(draw: Draw, stream: np.random.Generator, left: float, top: float, width: float, height: float) -> None:
    """A head, a torso in clothes, two arms and two legs; it touches all four sides of its box."""
    middle, tone = left + width / 2, float(stream.uniform(0.35, 1))
    skin = (int(235 * tone), int(190 * tone), int(160 * tone))
    radius = 0.09 * height
    waist, hip = top + 0.56 * height, 0.17 * width
    shoulder = top + 2 * radius
    half = 0.29 * width
    trousers = _colour(stream)
    for sign in (-1, 1):
        foot = middle + sign * float(stream.uniform(0.18, 0.42)) * width
        limb = [(middle, waist - 1), (middle + sign * half, waist - 1), (foot + hip, top + height),
                (foot - hip, top + height)]  # fmt: skip
        draw.polygon(_scaled(_within(limb, left, left + width)), fill=trousers)
        hand = top + float(stream.uniform(0.36, 0.58)) * height
        outer = left if sign < 0 else left + width
        arm = [(middle + sign * half * 0.8, shoulder), (middle + sign * half, shoulder + 0.13 * height), (outer, hand),
               (outer - sign * 0.12 * width, hand + 0.04 * height),
               (middle + sign * half * 0.6, shoulder + 0.1 * height)]  # fmt: skip
        draw.polygon(_scaled(arm), fill=skin)
    _clothes(draw, stream, middle - half, shoulder, 2 * half, waist - shoulder)
    draw.ellipse(_scaled([(middle - radius, top), (middle + radius, top + 2 * radius)]), fill=skin)


def _within(points: list[Point], low: float, high: float) -> list[Point]:
    return [(min(max(across, low), high), down) for across, down in points]


def _clothes(draw: Draw, stream: np.random.Generator, left: float, top: float, width: float, height: float) -> None:
    """A torso: plain, or with stripes or checks of a second colour."""
    first, second = _colour(stream), _colour(stream)
    draw.rectangle(_scaled([(left, top), (left + width, top + height)]), fill=first)
    pattern, bands = int(stream.integers(4)), int(stream.integers(3, 7))
    across, down = width / bands, height / bands
    for row in range(bands):
        for column in range(bands):
            if (0, row % 2, column % 2, (row + column) % 2)[pattern]:
                corner = (left + column * across, top + row * down)
                draw.rectangle(_scaled([corner, (corner[0] + across, corner[1] + down)]), fill=second)


def _tree(draw: Draw, stream: np.random.Generator, left: float, top: float, width: float, height: float) -> None:
    """A brown trunk below a green crown, round or pointed."""
    middle, trunk = left + width / 2, 0.1 * width
    brown = (int(stream.integers(80, 140)), int(stream.integers(50, 90)), int(stream.integers(10, 50)))
    green = (int(stream.integers(0, 90)), int(stream.integers(90, 200)), int(stream.integers(0, 90)))
    crown = top + float(stream.uniform(0.6, 0.72)) * height
    draw.rectangle(_scaled([(middle - trunk, crown - 1), (middle + trunk, top + height)]), fill=brown)
    if stream.integers(2):
        draw.ellipse(_scaled([(left, top), (left + width, crown)]), fill=green)
    else:
        draw.polygon(_scaled([(middle, top), (left + width, crown), (left, crown)]), fill=green)


def generated(split: Split, source: Source) -> Scenes:
    """The scenes of a split, as a spec asks for them."""
    return scenes(split) if source.side is None else scenes(split, source.side)
