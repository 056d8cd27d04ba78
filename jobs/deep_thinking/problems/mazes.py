"""Mazes: mark the path from the start to the end.

Source: Schwarzschild et al. 2021, section 3.2, and the generator of the easy-to-hard data sets. A maze of size n (odd)
has (n + 1) / 2 cells a side. Its image is black (walls) and white (corridors) with a green start and a red end.
"""

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from jobs.deep_thinking.problems.maze_generation import carve, paths, reached
from service.errors import FieldError

SMALLEST, LARGEST = 3, 1001  # of 3: two cells a side, the smallest with a path that turns

_PATH = np.array([66, 133, 244], dtype=np.uint8)  # how a picture shows the answer
_SIDE = 240  # pixels of a picture's shorter side, at least


class Mazes:
    """Perfect mazes, as images.

    scale: 2 doubles every pixel and pads one black pixel around, as the published data do (side 2n + 6); 1 leaves the
    image as it is (side n + 2).
    """

    name = "mazes"
    channels = 3
    dimensions = 2
    sizes = "pixels a side"

    def __init__(self, scale: Literal[1, 2] = 2) -> None:
        if scale not in (1, 2) or isinstance(scale, bool):
            raise FieldError("scale", "be 1 or 2", scale)
        self.scale = scale

    def check_size(self, size: int) -> None:
        if not SMALLEST <= size <= LARGEST or size % 2 == 0:
            raise FieldError("size", f"be odd, from {SMALLEST} to {LARGEST} pixels a side", size)

    def sample(self, size: int, count: int, seed: int) -> tuple[Tensor, Tensor]:
        """Mazes carved by a depth-first search that begins at the start cell; start and end are any two cells."""
        self.check_size(size)
        cells = (size + 1) // 2
        stream = np.random.default_rng(seed)
        ends = np.stack([stream.choice(cells * cells, size=2, replace=False) for _ in range(count)])
        rows, columns = 2 * (ends // cells) + 1, 2 * (ends % cells) + 1  # (count, 2): start and end
        grid = carve(cells, ends[:, 0], stream)
        starts = np.stack([rows[:, 0], columns[:, 0]], axis=1)
        goals = np.stack([rows[:, 1], columns[:, 1]], axis=1)
        solution = paths(grid, starts, goals)
        image = np.repeat(grid[:, None], 3, axis=1).astype(np.float32)
        index = np.arange(count)
        image[index, :, starts[:, 0], starts[:, 1]] = (0, 1, 0)
        image[index, :, goals[:, 0], goals[:, 1]] = (1, 0, 0)
        return torch.from_numpy(self._scaled(image)), torch.from_numpy(self._scaled(solution.astype(np.int64)))

    def _scaled(self, image: np.ndarray) -> np.ndarray:
        if self.scale == 1:
            return image
        doubled = image.repeat(2, axis=-2).repeat(2, axis=-1)
        return np.pad(doubled, [(0, 0)] * (image.ndim - 2) + [(1, 1), (1, 1)])

    def counted(self, inputs: Tensor) -> Tensor:
        """Open pixels: corridors, start and end."""
        return inputs.amax(1) > 0

    def verify(self, inputs: Tensor, predictions: Tensor) -> Tensor:
        """Whether the marked pixels are exactly the cells of one shortest path from start to end."""
        verdicts = []
        for image, marked in zip(self._undoubled(inputs), self._undoubled(predictions), strict=True):
            if image is None or marked is None:
                verdicts.append(False)
                continue
            open_, start, end = _read(image)
            inside = open_ & (marked > 0)
            if len(start) != 1 or len(end) != 1 or (marked > 0).sum() != inside.sum():
                verdicts.append(False)
                continue
            length = _distance(open_, start, end)
            within = _distance(inside, start, end) if inside[tuple(start[0])] else None
            verdicts.append(length is not None and within == length and int(inside.sum()) == length + 1)
        return torch.tensor(verdicts, dtype=torch.bool, device=inputs.device)

    def check_inputs(self, inputs: Tensor) -> list[str | None]:
        return [self._complaint(image, plain) for image, plain in zip(inputs, self._undoubled(inputs), strict=True)]

    def _complaint(self, image: Tensor, plain: np.ndarray | None) -> str | None:
        known = torch.tensor([[0, 0, 0], [1, 1, 1], [0, 1, 0], [1, 0, 0]], dtype=image.dtype, device=image.device)
        pixels = image.flatten(1).T  # (pixels, 3)
        if not (pixels[:, None] == known).all(-1).any(-1).all():
            return "a maze has pure black, white, green and red pixels only, with values 0 and 1"
        if plain is None:
            other = 3 - self.scale
            return f"this is not a maze drawn at scale {self.scale}" + (
                f"; it looks like one at scale {other}" if Mazes(scale=other)._fits(image) else ""  # type: ignore[arg-type]
            )
        open_, start, end = _read(plain)
        for cells, what, colour in ((start, "start", "green"), (end, "end", "red")):
            if len(cells) != 1:
                return f"a maze has one {what} ({colour}), this one has {len(cells)}"
        if _distance(open_, start, end) is None:
            return "there is no way from the start to the end"
        return None

    def warnings(self, inputs: Tensor) -> list[str | None]:
        """Loops, and a start with several ways out: networks trained on the published mazes have seen neither."""
        warnings: list[str | None] = []
        for image in self._undoubled(inputs):
            if image is None:
                warnings.append(None)
                continue
            open_, start, _ = _read(image)
            edges = int((open_[1:] & open_[:-1]).sum() + (open_[:, 1:] & open_[:, :-1]).sum())
            ways = sum(int(open_[tuple(place)]) for place in _around(start[0], open_.shape)) if len(start) else 0
            if edges >= open_.sum():
                warnings.append("the maze has loops; networks trained on mazes without them often fail")
            elif ways > 1:
                warnings.append(f"the start has {ways} ways out; networks trained on dead-end starts fail more often")
            else:
                warnings.append(None)
        return warnings

    def _fits(self, image: Tensor) -> bool:
        return self._undoubled(image.unsqueeze(0))[0] is not None

    def _undoubled(self, images: Tensor) -> list[np.ndarray | None]:
        """Each image with one pixel a place, None if it is drawn otherwise. images: (count, [3,] height, width)."""
        plain = images.detach().cpu().numpy()
        if self.scale == 1:
            doubled = [_is_doubled(image) for image in plain]
            return [None if twice else image for image, twice in zip(plain, doubled, strict=True)]
        return [image[..., 1:-1:2, 1:-1:2] if _is_doubled(image) else None for image in plain]

    def picture(self, instance: Tensor, prediction: Tensor | None) -> np.ndarray:
        """The maze, its pixels enlarged, with the marked corridor in blue."""
        image = (255 * instance.detach().cpu().numpy().transpose(1, 2, 0)).round().clip(0, 255).astype(np.uint8)
        if prediction is not None:
            corridor = (image == 255).all(-1)
            image[(prediction.cpu().numpy() > 0) & corridor] = _PATH
        factor = max(1, -(-_SIDE // min(image.shape[:2])))
        return image.repeat(factor, 0).repeat(factor, 1)


def _is_doubled(image: np.ndarray) -> bool:
    """Whether an image ([channels,] height, width) has blocks of 2x2 equal pixels inside an empty border."""
    height, width = image.shape[-2:]
    if height % 2 or width % 2 or min(height, width) < 4:
        return False
    inside = image[..., 1:-1, 1:-1]
    border = image.sum() - inside.sum()
    same = (inside[..., ::2, :] == inside[..., 1::2, :]).all() and (inside[..., ::2] == inside[..., 1::2]).all()
    return bool(same and border == 0)


def _read(image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Open pixels (height, width), and the places (n, 2) of green and of red ones. image: (3, height, width)."""
    red, green, blue = image
    return image.max(0) > 0, np.argwhere((green > red) & (green > blue)), np.argwhere((red > green) & (red > blue))


def _distance(open_: np.ndarray, start: np.ndarray, end: np.ndarray) -> int | None:
    """Steps of the shortest way between two places, None if there is none."""
    steps = reached(open_[None], start)[0][tuple(end[0])]
    return None if steps < 0 else int(steps)


def _around(place: np.ndarray, shape: tuple[int, ...]) -> list[tuple[int, int]]:
    row, column = int(place[0]), int(place[1])
    near = [(row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)]
    return [(r, c) for r, c in near if 0 <= r < shape[0] and 0 <= c < shape[1]]
