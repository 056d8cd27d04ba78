"""The peak of a density of images whose values are on a grid, each spread over its cell."""

import math

import numpy as np

from jobs.common.metrics.intervals import clopper_pearson_upper
from jobs.inevitability.density.estimate import (
    DensityEstimate,
    Images,
    cell_reach,
    check_images,
    check_levels,
    estimate_of,
    on_grid,
)


def quantised(images: Images, levels: int = 256) -> tuple[DensityEstimate, DensityEstimate]:
    """n log(levels) + log of the largest share of one cell, for images spread uniformly over cells of 1/levels.

    Two values: with the share that the most frequent cell has among these images (an estimate: the class is taken to be
    these images and nothing else), and with its exact 95 % limit from above (an upper bound: it holds for the true
    share of every cell, whose count in the sample is at most that of the most frequent one). levels: values that a
    pixel can have, 256 for 8 bits; others are rounded to these. FieldError: levels below 2, no images.
    """
    check_levels(levels)
    check_images(images)
    count, n = images.shape
    repeated = int(np.unique(np.rint(images * (levels - 1)), axis=0, return_counts=True)[1].max())
    cells = n * math.log(levels)
    setting = f"{levels} levels, the most frequent of {count} images {repeated} times"
    rounded = not on_grid(images, levels)
    notes = (f"{repeated} images are equal" + (" once they are rounded" if rounded else ""),) if repeated > 1 else ()
    reach = cell_reach(levels, rounded)
    value = cells + math.log(repeated) - math.log(count)
    limit = cells + math.log(clopper_pearson_upper(repeated, count))
    return (
        estimate_of("quantised", "estimate", value, setting, n, notes, reach=reach),
        estimate_of("quantised, limit", "upper bound", limit, f"{setting}, at 95 %", n, notes, reach=reach),
    )
