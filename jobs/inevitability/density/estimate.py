"""What every estimate of the density of a class says of itself."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from service.errors import FieldError, InputError

Kind = Literal["lower bound", "upper bound", "estimate"]

Images = NDArray[np.float64]
"""of one class: (count, n), pixels in [0, 1]"""

Fixed = tuple[tuple[int, float], ...]
"""pixels that keep one value, each with its place among the n and the value: a face of the cube, () for all of it"""


ROUNDING = 1e-4
"""of a step of the grid: as far as a pixel of 8 bits in float32 may be from it"""


@dataclass(frozen=True, kw_only=True)
class DensityEstimate:
    """The logarithm of the peak of the density of a class on [0, 1]^n, as one method has it.

    There is no true value to be had from samples: a peak depends on the scale at which one looks. So several are put
    side by side, each with what it is a bound of.
    """

    method: str
    kind: Kind
    log_density: float
    """log U_c, at least 0; infinity: no density at this scale"""
    setting: str
    """the choices that it depends on, in words: k, a bandwidth, a number of levels"""
    dimension: int
    """n of the cube that it is about: of the pixels that are not dropped, to which perturbations are then confined"""
    reach: float = 0.0
    """how far a pixel may be from that of the image: above 0 if the density is that of images after some noise. What a
    bound then says within epsilon holds for the images within epsilon and the noise"""
    notes: tuple[str, ...] = ()
    """what a reader should know, one sentence each"""
    dropped: Fixed = ()
    """the pixels without a density: what a bound says is about the face where they keep their value, and so is the
    share of a class"""

    def __post_init__(self) -> None:
        if not self.log_density >= 0:
            raise FieldError("log_density", "be at least 0", self.log_density)

    def conclusion(self, verdict: Literal["useful", "vacuous", "not applicable"]) -> str:
        """How far a verdict that was reached with this value can be relied on, in a sentence."""
        if verdict == "not applicable":
            return "no density would change it"
        certain = {"useful": "upper bound", "vacuous": "lower bound"}[verdict]
        if self.kind == certain:
            side = "at most" if verdict == "useful" else "at least"
            return f"certain, since log U_c is {side} {self.log_density:.6g}"
        if self.kind == "estimate":
            return f"as good as the estimate of log U_c, {self.log_density:.6g}"
        side = "larger" if self.kind == "lower bound" else "smaller"
        return f"open, since log U_c may be {side} than {self.log_density:.6g}"


def estimate_of(
    method: str,
    kind: Kind,
    value: float,
    setting: str,
    dimension: int,
    notes: tuple[str, ...] = (),
    reach: float = 0.0,
    dropped: Fixed = (),
) -> DensityEstimate:
    """An estimate from a value that may be below 0, which no density has: it becomes 0, and a note says so."""
    if value < 0:
        notes = (*notes, f"the value is {value:.6g}, and no density has a peak with a logarithm below 0: 0 is taken")
    if reach:
        notes = (*notes, f"it is about images with noise, which are up to {reach:.4g} away in every pixel")
    return DensityEstimate(
        method=method,
        kind=kind,
        log_density=max(0.0, value),
        setting=setting,
        dimension=dimension,
        reach=reach,
        notes=notes,
        dropped=dropped,
    )


def check_images(images: Images, least: int = 1) -> None:
    """InputError unless they are (count, n) of finite pixels in [0, 1], and at least as many as `least`."""
    if images.ndim != 2 or not images.shape[1]:
        raise InputError(f"images of a class must be (count, n); their shape is {images.shape}")
    if not np.isfinite(images).all():
        raise InputError("pixels must be in [0, 1]; some are NaN or infinite")
    if len(images) < least:
        raise FieldError("images of a class", f"be at least {least} for this estimate", len(images))
    low, high = float(images.min()), float(images.max())
    if low < 0 or high > 1:
        raise InputError(f"pixels must be in [0, 1]; they are in [{low:g}, {high:g}]")


def check_levels(levels: int) -> None:
    """FieldError unless there are at least two."""
    if levels < 2:
        raise FieldError("levels", "be at least 2, the values that a pixel can have", levels)


def on_grid(images: Images, levels: int) -> bool:
    """Whether all pixels are on the grid of values i / (levels - 1), as far as float32 tells."""
    steps = images * (levels - 1)
    return bool((np.abs(steps - np.rint(steps)) <= ROUNDING).all())


def cell_reach(levels: int, rounded: bool = False) -> float:
    """How far a pixel i / (levels - 1) may be from a point of its cell, from i / levels to (i + 1) / levels.

    rounded: the pixel is anything that is rounded to that value. Then the farthest is that of the cells beside the
    outermost: from 1/2 / (levels - 1) to 2 / levels.
    """
    return 2 / levels - 0.5 / (levels - 1) if rounded else 1 / levels


def constant_pixels(images: Images) -> NDArray[np.bool_]:
    """Which pixels are the same in all images: bool (n,)."""
    return np.asarray(np.ptp(images, axis=0) == 0)
