"""The peak of a density of images whose values are on a grid, each spread over its cell."""

import math

import numpy as np

from jobs.common.metrics.intervals import clopper_pearson_upper
from jobs.inevitability.density.estimate import DensityEstimate, Images, check_images, check_levels, estimate_of


def quantised(images: Images, levels: int = 256) -> tuple[DensityEstimate, DensityEstimate]:
    """n log(levels) + log of the largest share of one image, for images spread uniformly over cells of 1/levels.

    Two values: with the share that the most frequent image has among these (an estimate: the class is taken to be these
    images and nothing else), and with its exact 95 % limit from above (an upper bound: it holds for the true share of
    every image, whose count in the sample is at most that of the most frequent one). levels: values that a pixel can
    have, 256 for 8 bits. FieldError: levels below 2, no images.
    """
    check_levels(levels)
    check_images(images)
    count, n = images.shape
    repeated = int(np.unique(images, axis=0, return_counts=True)[1].max())
    cells = n * math.log(levels)
    setting = f"{levels} levels, the most frequent of {count} images {repeated} times"
    notes = (f"{repeated} images are equal",) if repeated > 1 else ()
    value = cells + math.log(repeated) - math.log(count)
    limit = cells + math.log(clopper_pearson_upper(repeated, count))
    return (
        estimate_of("quantised", "estimate", value, setting, n, notes, reach=1 / levels),
        estimate_of("quantised, limit", "upper bound", limit, f"{setting}, at 95 %", n, notes, reach=1 / levels),
    )
