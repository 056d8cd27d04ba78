"""The points that a concentration is measured on, and their halves: one to fit regions to, one to measure them on."""

from dataclasses import dataclass

import torch
from torch import Tensor

from service.errors import FieldError, InputError


@dataclass(frozen=True)
class Sample:
    """Points with, if it is known, how uncertain their labels are.

    InputError: fewer than two points, a value that is not finite, or uncertainties that are not one for each point.
    """

    points: Tensor
    """float (n, d): each image as a row of pixels, whatever their range; epsilons are in the same units"""
    uncertainty: Tensor | None = None
    """float (n,) in [0, 2], see `label_uncertainty`"""

    def __post_init__(self) -> None:
        if self.points.ndim != 2 or not self.points.is_floating_point():
            raise InputError(
                f"points must be floats of shape (points, pixels); they are {self.points.dtype} of shape "
                f"{tuple(self.points.shape)}"
            )
        if len(self.points) < 2 or not self.points.shape[1]:
            raise InputError(f"points must be at least 2, of at least one pixel; they are {tuple(self.points.shape)}")
        if not bool(self.points.isfinite().all()):
            row = int((~self.points.isfinite().all(1)).nonzero()[0])
            raise InputError(f"points must be finite; point {row} is not")
        if self.uncertainty is not None and self.uncertainty.shape != self.points.shape[:1]:
            raise InputError(
                f"uncertainty must have one value for each of the {len(self.points):,} points; its shape is "
                f"{tuple(self.uncertainty.shape)}"
            )

    def __len__(self) -> int:
        return len(self.points)

    @property
    def pixels(self) -> int:
        """How many numbers a point has."""
        return self.points.shape[1]

    def rows(self, rows: Tensor) -> "Sample":
        """Some of the points. rows: int64 (k,)."""
        return Sample(self.points[rows], None if self.uncertainty is None else self.uncertainty[rows])


def half(count: int, share: float = 0.5) -> int:
    """How many of so many points are fitted to."""
    return round(count * share)


def halves(sample: Sample, seed: int, share: float = 0.5) -> tuple[Sample, Sample]:
    """Draw the points to fit to, without replacement, and leave the others to measure on.

    share: of the points to fit to, in (0, 1); half of them in the sources. FieldError: one of the two would be empty.
    """
    first = half(len(sample), share)
    if not 0 < first < len(sample):
        raise FieldError("share", f"leave points on both sides, of {len(sample):,}", share)
    order = torch.randperm(len(sample), generator=torch.Generator().manual_seed(seed))
    return sample.rows(order[:first]), sample.rows(order[first:])
