"""Where the corner marks of a printed sheet are in a photograph of it."""

import itertools

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from jobs.invisibility_cloak.physical.layout import MARK_UNITS
from service.errors import InputError

WINDOW = 12  # the level that black is told from is the mean over this part of the shorter side
DARKER = 0.8  # than that mean is black
SMALLEST = 5  # pixels: side of the inner square of a mark
MOST_CANDIDATES = 14
OUTER, WHITE, INNER = MARK_UNITS
RING = OUTER**2 - WHITE**2  # area of the black ring, in units; of the inner square it is INNER**2
CENTRED = 0.12  # sides of a mark by which its two parts may be apart
SLACK = 1.7  # factor by which ratios of areas and of sides may differ from those of the sheet
ALIKE = 3.0  # factor by which the sides of the four marks of a sheet may differ


def find_marks(grey: np.ndarray) -> np.ndarray:
    """Centres of the four marks, clockwise, beginning with any: float64 (4, 2), x and y in pixels, centres at halves.

    grey: float (height, width) in [0, 1]. If there are more marks than four, those that span the largest sheet.
    InputError, saying how many there are, if fewer than four are seen.
    """
    centres, sides = _candidates(_black(grey))
    if len(centres) < 4:
        raise InputError(
            f"the photograph shows {len(centres)} of the four corner marks of a sheet",
            hint="the whole sheet must be in the picture, sharp and evenly lit, and its marks at least 20 pixels wide",
        )
    largest = np.argsort(sides)[::-1][:MOST_CANDIDATES]
    best, chosen = -1.0, None
    for four in itertools.combinations(largest.tolist(), 4):
        if sides[list(four)].max() > ALIKE * sides[list(four)].min():
            continue
        corners = _clockwise(centres[list(four)])
        if (area := _convex_area(corners)) > best:
            best, chosen = area, corners
    if chosen is None or best <= 0:
        raise InputError("the corner marks in the photograph are not those of one sheet")
    return chosen


def _black(grey: np.ndarray) -> np.ndarray:
    """Which pixels are darker than what is around them: bool (height, width)."""
    window = max(9, min(grey.shape) // WINDOW)
    around = ndimage.uniform_filter(grey, window, mode="nearest")
    return np.asarray(grey < DARKER * around)


def _candidates(black: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centres (n, 2) and sides (n,) of what looks like a mark: a black ring around a black square."""
    labels, count = ndimage.label(black)
    if not count:
        return np.zeros((0, 2)), np.zeros(0)
    numbers = np.arange(1, count + 1)
    areas = ndimage.sum_labels(np.ones_like(labels), labels, numbers)
    extents = ndimage.find_objects(labels)
    sides = np.array([[part.stop - part.start for part in each] for each in extents], np.float64)  # (count, 2)
    kept = np.flatnonzero((sides.min(1) >= SMALLEST) & (sides.max(1) <= 2.5 * sides.min(1)))
    if not len(kept):
        return np.zeros((0, 2)), np.zeros(0)
    middles = np.array([[part.start + part.stop for part in extents[place]] for place in kept])[:, ::-1] / 2
    areas, sides = areas[kept], sides[kept]
    centres, lengths = [], []
    pairs = cKDTree(middles).query_pairs(CENTRED * sides.max(), output_type="ndarray")
    for first, second in pairs:
        ring, inner = (first, second) if sides[first].max() > sides[second].max() else (second, first)
        if np.abs(middles[ring] - middles[inner]).max() > CENTRED * sides[ring].min():
            continue
        ratios = [areas[ring] / areas[inner] / (RING / INNER**2), *(sides[ring] / sides[inner] / (OUTER / INNER))]
        if max(ratios) < SLACK and min(ratios) > 1 / SLACK:
            where = extents[kept[inner]]
            mass = ndimage.center_of_mass(labels[where] == kept[inner] + 1)
            centres.append([where[1].start + mass[1] + 0.5, where[0].start + mass[0] + 0.5])
            lengths.append(float(sides[ring].mean()))
    return np.array(centres).reshape(-1, 2), np.array(lengths)


def _clockwise(corners: np.ndarray) -> np.ndarray:
    """Points around their middle, as seen with y downwards."""
    around = corners - corners.mean(0)
    return corners[np.argsort(np.arctan2(around[:, 1], around[:, 0]))]


def _convex_area(corners: np.ndarray) -> float:
    """Of four points in order; below zero unless they are a convex quadrilateral."""
    after = np.roll(corners, -1, 0) - corners
    turns = after[:, 0] * np.roll(after[:, 1], -1) - after[:, 1] * np.roll(after[:, 0], -1)
    if (turns <= 0).any():
        return -1.0
    x, y = corners.T
    return float(abs((x * np.roll(y, -1) - y * np.roll(x, -1)).sum()) / 2)
