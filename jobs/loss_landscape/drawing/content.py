"""What is drawn: landscapes, curves, paths and maps of curvature, as arrays."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Landscape:
    """The loss on a plane. x: (steps_x,), y: (steps_y,), ascending; loss: (steps_y, steps_x).

    censored: bool, of the shape of the loss: known only to be above what `loss` says there. names: of the two axes.
    measured: bool, of the same shape: elsewhere the loss is interpolated. None: everywhere.
    """

    title: str
    x: np.ndarray
    y: np.ndarray
    loss: np.ndarray
    censored: np.ndarray | None = None
    names: tuple[str, str] = ("x", "y")
    measured: np.ndarray | None = None

    @property
    def bounded(self) -> np.ndarray:
        """Where a bound is known and no more: bool (steps_y, steps_x)."""
        return np.zeros(self.loss.shape, bool) if self.censored is None else self.censored & np.isfinite(self.loss)

    @property
    def known(self) -> np.ndarray:
        """The loss where it is finite and known, else NaN."""
        return np.where(np.isfinite(self.loss) & ~self.bounded, self.loss, np.nan)


@dataclass(frozen=True)
class Curve:
    """The loss along a line. x, loss: (steps,); accuracy: shares in [0, 1]; error: standard errors of the loss."""

    label: str
    x: np.ndarray
    loss: np.ndarray
    accuracy: np.ndarray | None = None
    error: np.ndarray | None = None
    held_out: bool = False


@dataclass(frozen=True)
class Path:
    """Checkpoints on a plane. coordinates: (checkpoints, 2); steps: (checkpoints,), when they were made, in `unit`s.

    loss: of the checkpoints themselves; projected: of the points of the plane at which they are drawn; the two differ
    by what the plane leaves out. explained: shares in [0, 1] of the path's variance along the two axes.
    """

    coordinates: np.ndarray
    steps: np.ndarray
    loss: np.ndarray
    projected: np.ndarray
    explained: tuple[float, float] | None = None
    unit: str = "epoch"


@dataclass(frozen=True)
class CurvatureMap:
    """The extreme eigenvalues of the Hessian on a plane, (steps_y, steps_x), or on a line: (steps_x,), and no y."""

    title: str
    x: np.ndarray
    y: np.ndarray | None
    smallest: np.ndarray
    largest: np.ndarray

    @property
    def ratio(self) -> np.ndarray:
        """smallest / largest, with its sign."""
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio: np.ndarray = self.smallest / self.largest
        return ratio
