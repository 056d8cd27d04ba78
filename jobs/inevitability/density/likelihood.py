"""The peak of a density from below, by the likelihood of any model of it."""

import math

import numpy as np

from jobs.inevitability.density.estimate import (
    DensityEstimate,
    Images,
    cell_reach,
    check_images,
    check_levels,
    estimate_of,
    on_grid,
)
from service.errors import FieldError


def from_likelihood(
    bits: float, n: int, levels: int = 256, model: str = "a model", rounded: bool = False
) -> DensityEstimate:
    """n (log levels - b log 2), at most log U_c: b bits per dimension of dequantised images that the model did not
    learn, each spread over its cell of 1/levels.

    The mean of the logarithm of a density is at most that of its peak, and no model has a larger mean under the data
    than the density itself. bits: as published for images of `levels` values; of all classes together it bounds the
    density of all, of one class that of the class. rounded: images are of other values, rounded to these. FieldError:
    bits that are not finite, n below 1, levels below 2.
    """
    check_levels(levels)
    if n < 1:
        raise FieldError("n", "be at least 1", n)
    if not math.isfinite(bits):
        raise FieldError("bits", "be a finite number of bits per dimension", bits)
    value = n * (math.log(levels) - bits * math.log(2))
    setting, reach = f"{bits:.4g} bits per dimension of {model}", cell_reach(levels, rounded)
    return estimate_of("likelihood", "lower bound", value, setting, n, reach=reach)


def gaussian_likelihood(images: Images, seed: int, levels: int = 256) -> DensityEstimate:
    """`from_likelihood` of a Gaussian: fitted to half of the images, chosen at random, and evaluated on the other half.

    Images are spread over cells of 1/levels first (values i / (levels - 1) to (i + u) / levels, u uniform). Its
    covariance is shrunk as Ledoit & Wolf (2004) do. FieldError: fewer than 4 images, levels below 2.
    """
    from sklearn.covariance import LedoitWolf  # takes a second to load

    check_levels(levels)
    check_images(images, least=4)
    count, n = images.shape
    draws = np.random.default_rng(seed)
    order = draws.permutation(count)
    spread = (np.rint(images * (levels - 1)) + draws.uniform(size=images.shape)) / levels
    fitted = LedoitWolf().fit(spread[order[: count // 2]])
    values, vectors = np.linalg.eigh(fitted.covariance_)
    rest = spread[order[count // 2 :]]
    scores = ((rest - fitted.location_) @ vectors) ** 2 / values
    logs = -0.5 * (n * math.log(2 * math.pi) + float(np.log(values).sum()) + scores.sum(1))
    bits = math.log2(levels) - float(logs.mean()) / (n * math.log(2))
    name = f"a Gaussian on {len(rest)} held-out images, give or take {logs.std() / math.sqrt(len(rest)):.2g} in log U_c"
    return from_likelihood(bits, n, levels, name, rounded=not on_grid(images, levels))
