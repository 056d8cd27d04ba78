"""Fewer points where a surface is smooth: a coarse grid first, then more of them where it bends or crosses a contour.

A block is a rectangle of the grid that is measured at its corners and in the middle, where a minimum might hide. It is
halved along each side, and the halves are measured, as long as the loss at these points differs enough. What is left
inside of blocks is interpolated between their corners, linearly in ln(loss + 0.1), and marked. Which points are
measured depends on the losses alone.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Annotated

import numpy as np
from pydantic import Field
from scipy.interpolate import griddata

from jobs.common.params import ONCE, StudyParams

Index = tuple[int, int]
"""row and column in the grid"""

Block = tuple[int, int, int, int]
"""first and last row, first and last column"""

OFFSET = 0.1  # added to the loss before the logarithm


class RefinementParams(StudyParams):
    """Where to look closer."""

    stride: int = Field(4, ge=2, le=64, description="points of the grid from one of the coarse grid to the next")
    levels: Annotated[tuple[float, ...], ONCE] = Field(
        (0.1, 0.5, 1.0, 2.0, 4.0, 8.0), description="contour levels; a block that one of them crosses is refined"
    )
    bend: float = Field(0.5, gt=0, description="difference of ln(loss + 0.1) in a block from which it is refined")

    def is_smooth(self, losses: np.ndarray) -> bool:
        """Whether a block needs no more points. losses: float64 (5,), at its corners and in its middle."""
        finite = np.isfinite(losses)
        if not finite.all():
            return not finite.any()
        low, high = losses.min(), losses.max()
        crossed = any(low < level <= high for level in self.levels)
        return not crossed and _height(high) - _height(low) <= self.bend


def measure(
    shape: tuple[int, int], params: RefinementParams | None, losses_at: Callable[[list[Index]], list[float]]
) -> tuple[np.ndarray, np.ndarray]:
    """Measure a surface. Returns the losses, float64 (rows, columns), and where they were measured, bool.

    losses_at: measures points, each once. params: none measures every point.
    """
    losses, known = np.full(shape, np.nan), np.zeros(shape, dtype=bool)

    def measure_new(points: list[Index]) -> None:
        new = sorted({point for point in points if not known[point]})
        if new:
            rows, columns = zip(*new, strict=True)
            losses[rows, columns] = losses_at(new)
            known[rows, columns] = True

    if params is None:
        measure_new([(row, column) for row in range(shape[0]) for column in range(shape[1])])
        return losses, known
    rows, columns = (_spans(count, params.stride) for count in shape)
    blocks: list[Block] = [(*row, *column) for row in rows for column in columns]
    smooth: list[Block] = []
    while blocks:
        measure_new([point for block in blocks for point in _probes(block)])
        bent: list[Block] = []
        for block in blocks:
            at_probes = losses[tuple(zip(*_probes(block), strict=True))]
            done = params.is_smooth(at_probes) or len(_halves(block)) == 1
            (smooth if done else bent).append(block)
        blocks = [half for block in bent for half in _halves(block)]
    for block in smooth:
        _fill(block, losses, known)
    return losses, known


def interpolate(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Another quantity of the same surface where it was not measured: from the nearest measured points."""
    if known.all():
        return values
    rows, columns = np.nonzero(known)
    if len(set(rows)) == 1:
        filled = np.interp(np.arange(values.shape[1]), columns, values[rows, columns])[None]
    else:
        everywhere = tuple(np.indices(values.shape))
        filled = griddata((rows, columns), values[known], everywhere, method="nearest")
    return np.where(known, values, filled)


def _spans(count: int, stride: int) -> list[tuple[int, int]]:
    """Stretches of a side from one coarse point to the next; a line has one row and no stretch across."""
    if count == 1:
        return [(0, 0)]
    return list(pairwise([*range(0, count - 1, stride), count - 1]))


def _probes(block: Block) -> list[Index]:
    """The corners and the middle."""
    top, bottom, left, right = block
    middle = ((top + bottom) // 2, (left + right) // 2)
    return [(top, left), (top, right), (bottom, left), (bottom, right), middle]


def _halves(block: Block) -> list[Block]:
    """A block cut through the middle of each side that has a point there."""
    top, bottom, left, right = block
    return [(*row, *column) for row in _cut(top, bottom) for column in _cut(left, right)]


def _cut(first: int, last: int) -> list[tuple[int, int]]:
    middle = (first + last) // 2
    return [(first, middle), (middle, last)] if last - first > 1 else [(first, last)]


def _fill(block: Block, losses: np.ndarray, known: np.ndarray) -> None:
    """Interpolate inside a block, and on its sides, wherever nothing was measured."""
    top, bottom, left, right = block
    down = np.linspace(0, 1, bottom - top + 1)[:, None]
    across = np.linspace(0, 1, right - left + 1)[None, :]
    upper, lower = (
        (1 - across) * _height(losses[row, left]) + across * _height(losses[row, right]) for row in (top, bottom)
    )
    filled = np.exp((1 - down) * upper + down * lower) - OFFSET
    part = np.s_[top : bottom + 1, left : right + 1]
    losses[part] = np.where(known[part], losses[part], filled)


def _height(loss: float | np.ndarray) -> np.ndarray:
    return np.log(np.maximum(loss, 0) + OFFSET)
