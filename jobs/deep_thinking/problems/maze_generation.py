"""Carve and solve many mazes at once: every maze of a batch takes its next step in the same NumPy call."""

import numpy as np

_STEPS = np.array([[-1, 0], [1, 0], [0, -1], [0, 1]])


def carve(cells: int, starts: np.ndarray, stream: np.random.Generator) -> np.ndarray:
    """Perfect mazes by randomised depth-first search (the recursive backtracker), each rooted at its start cell.

    cells: per side. starts: int (count,), cell numbers row by row. Returns bool (count, 2 cells + 1, 2 cells + 1): open
    pixels; cell (r, c) is pixel (2r + 1, 2c + 1).
    """
    count, index = len(starts), np.arange(len(starts))
    grid = np.zeros((count, 2 * cells + 1, 2 * cells + 1), dtype=bool)
    # visited cells with a border of one, so that a step over the edge meets something visited
    visited = np.ones((count, cells + 2, cells + 2), dtype=bool)
    visited[:, 1:-1, 1:-1] = False
    place = np.stack([starts // cells, starts % cells], axis=1)
    visited[index, place[:, 0] + 1, place[:, 1] + 1] = True
    grid[index, 2 * place[:, 0] + 1, 2 * place[:, 1] + 1] = True
    stack = np.zeros((count, cells * cells, 2), dtype=np.int64)
    depth = np.zeros(count, dtype=np.int64)
    stack[:, 0] = place
    # a search visits every cell once on the way in and leaves each but the root once on the way back
    for _ in range(2 * cells * cells - 2):
        beside = place[:, None] + _STEPS  # (count, 4, 2)
        free = ~visited[index[:, None], beside[..., 0] + 1, beside[..., 1] + 1]  # (count, 4)
        choices = free.sum(1)
        draw = np.minimum((stream.random(count) * choices).astype(np.int64), choices - 1)
        # the chosen one is the free neighbour that has `draw` free ones before it
        chosen = ((free.cumsum(1) == draw[:, None] + 1) & free).argmax(1)
        onward = choices > 0
        target = beside[index, chosen]
        go, to = index[onward], target[onward]
        visited[go, to[:, 0] + 1, to[:, 1] + 1] = True
        grid[go, 2 * to[:, 0] + 1, 2 * to[:, 1] + 1] = True
        middle = place[onward] + to + 1
        grid[go, middle[:, 0], middle[:, 1]] = True
        depth = np.where(onward, depth + 1, np.maximum(depth - 1, 0))
        stack[go, depth[onward]] = to
        place = stack[index, depth]
    return grid


def reached(open_: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Steps from the start to every open pixel, -1 where no way leads: breadth-first search, all grids at once.

    open_: bool (count, height, width). starts: int (count, 2). Returns int (count, height, width).
    """
    count, height, width = open_.shape
    distance = np.full((count, height, width), -1, dtype=np.int64)
    wave = np.zeros((count, height + 2, width + 2), dtype=bool)
    wave[np.arange(count), starts[:, 0] + 1, starts[:, 1] + 1] = True
    wave[:, 1:-1, 1:-1] &= open_
    steps = 0
    while wave.any():
        inside = wave[:, 1:-1, 1:-1]
        distance[inside] = steps
        grown = wave[:, :-2, 1:-1] | wave[:, 2:, 1:-1] | wave[:, 1:-1, :-2] | wave[:, 1:-1, 2:]
        wave[:, 1:-1, 1:-1] = grown & open_ & (distance < 0)
        steps += 1
    return distance


def paths(open_: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """The pixels of a shortest way, both ends included; of a perfect maze the only way.

    open_: bool (count, height, width). starts, ends: int (count, 2). Returns bool like `open_`; empty if no way.
    """
    distance = reached(open_, starts)
    count, height, width = open_.shape
    # a border that no way crosses
    padded = np.full((count, height + 2, width + 2), -2, dtype=np.int64)
    padded[:, 1:-1, 1:-1] = distance
    path = np.zeros_like(open_)
    index, place = np.arange(count), ends.copy()
    left = distance[index, place[:, 0], place[:, 1]]
    while (left >= 0).any():
        on = left >= 0
        path[index[on], place[on, 0], place[on, 1]] = True
        beside = place[:, None] + _STEPS
        nearer = padded[index[:, None], beside[..., 0] + 1, beside[..., 1] + 1] == (left - 1)[:, None]
        place = np.where((on & (left > 0))[:, None], beside[index, nearer.argmax(1)], place)
        left = np.where(on, left - 1, left)
    return path
