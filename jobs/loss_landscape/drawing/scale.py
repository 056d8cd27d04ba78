"""The scale that all landscapes of a figure share, so that they can be compared.

It is logarithmic where the loss varies by more than a factor of WIDE.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.colors import LogNorm, Normalize
from matplotlib.ticker import MaxNLocator

from jobs.loss_landscape.drawing.content import Landscape

WIDE = 30  # highest loss over lowest, from which a scale is logarithmic
DEPTH = 1e-12  # of the highest loss: what is below it is at the bottom of a logarithmic scale
LEVELS = 15  # contours at most, or thereabouts


def is_wide(loss: np.ndarray) -> bool:
    """Whether the loss needs a logarithmic scale: nowhere negative, and varying by more than a factor of WIDE."""
    finite = loss[np.isfinite(loss)]
    positive = finite[finite > 0]
    return bool(len(positive) and finite.min() >= 0 and positive.max() > WIDE * positive.min())


def contour_levels(loss: np.ndarray) -> list[float]:
    """Round values between the lowest and the highest finite loss, never outside; [] if it is the same everywhere.

    On a logarithmic scale 1, 2 and 5 times powers of ten, or powers alone if these would be too many.
    """
    finite = loss[np.isfinite(loss)]
    if not len(finite) or finite.min() == finite.max():
        return []
    low, high = finite.min(), finite.max()
    if is_wide(loss):
        low = max(finite[finite > 0].min(), DEPTH * high)
        powers = np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
        if len(powers) > LEVELS / 3:
            candidates = 10.0 ** powers[powers % -(-len(powers) // LEVELS) == 0]
        else:
            candidates = np.outer(10.0**powers, [1, 2, 5]).ravel()
    else:
        candidates = MaxNLocator(LEVELS, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    levels = [float(level) for level in candidates if low < level < high]
    return levels or [float((low + high) / 2)]


@dataclass(frozen=True)
class Scale:
    """The colours and contours that all landscapes of a figure share."""

    low: float
    high: float
    logarithmic: bool
    levels: list[float]

    @property
    def norm(self) -> Normalize:
        return (LogNorm if self.logarithmic else Normalize)(self.low, self.high)

    def height(self, loss: np.ndarray) -> np.ndarray:
        """The loss, or its decimal logarithm, with what is outside of the scale at its ends."""
        inside = loss.clip(self.low, self.high)
        return np.log10(inside) if self.logarithmic else inside


def shared_scale(landscapes: Sequence[Landscape], bounds: bool = False) -> Scale:
    """bounds: whether those of censored points count."""
    losses = np.concatenate([(each.loss if bounds else each.known).ravel() for each in landscapes])
    finite = losses[np.isfinite(losses)]
    if not len(finite):
        return Scale(0.0, 1.0, False, [])
    low, high = float(finite.min()), float(finite.max())
    if is_wide(losses):
        return Scale(max(float(finite[finite > 0].min()), DEPTH * high), high, True, contour_levels(losses))
    return Scale(low, high if high > low else low + 1, False, contour_levels(losses))
