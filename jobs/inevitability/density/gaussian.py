"""The peak of a Gaussian fit."""

import math

import numpy as np

from jobs.inevitability.density.estimate import DensityEstimate, Images, check_images, constant_pixels, estimate_of
from service.errors import FieldError


def gaussian(images: Images, step: float | None = None, shrinkage: float = 0.0) -> DensityEstimate:
    """-log det(2 pi S) / 2, the logarithm of the density of N(m, S) at its mean, S the covariance of the images.

    step: of the grid that pixel values are on (1/255 for 8 bits): its variance, step^2 / 12, is added to every pixel;
    the density is then that of images spread over the cells, half a step to both sides. None: values are continuous.
    shrinkage: s in (1 - s) S + s diag(S), which makes a covariance of few images regular.
    Pixels that are the same in all images have no density along them: without a step they are dropped, and a note says
    so. A covariance that is singular all the same gives infinity. FieldError: a step or a shrinkage out of range, fewer
    than 2 images.
    """
    if step is not None and not 0 < step <= 1:
        raise FieldError("step", "be above 0 and at most 1", step)
    if not 0 <= shrinkage <= 1:
        raise FieldError("shrinkage", "be from 0 to 1", shrinkage)
    check_images(images, least=2)
    constant = constant_pixels(images)
    notes: tuple[str, ...] = ()
    if constant.any():
        grid = f"{int(constant.sum())} of {len(constant)} pixels are the same in all images"
        kept = "their density is that of the grid alone" if step else "they are dropped, as they have no density"
        notes = (f"{grid}: {kept}",)
    first, reach = images[0], (step or 0.0) / 2
    if step is None:
        images = images[:, ~constant]
    count, n = images.shape
    setting = f"covariance of {count} images"
    setting += f", step {step:.4g}" if step else ", no step"
    setting += f", shrinkage {shrinkage:g}" if shrinkage else ""
    if not n:
        return estimate_of("Gaussian", "estimate", math.inf, setting, len(constant), notes)
    dropped = tuple((int(place), float(first[place])) for place in constant.nonzero()[0]) if step is None else ()
    covariance = np.atleast_2d(np.cov(images, rowvar=False))
    covariance = (1 - shrinkage) * covariance + shrinkage * np.diag(np.diag(covariance))
    covariance += np.eye(n) * (step or 0.0) ** 2 / 12
    # a rank that is not full shows in eigenvalues at the level of rounding, of either sign
    values = np.linalg.eigvalsh(covariance)
    if values[0] <= n * np.finfo(float).eps * values[-1]:
        rank = int((values > n * np.finfo(float).eps * values[-1]).sum())
        notes += (f"the covariance has rank {rank} of {n}: the fit has no density without shrinkage or a step",)
        return estimate_of("Gaussian", "estimate", math.inf, setting, n, notes, reach, dropped)
    value = -0.5 * (n * math.log(2 * math.pi) + float(np.log(values).sum()))
    return estimate_of("Gaussian", "estimate", value, setting, n, notes, reach, dropped)
