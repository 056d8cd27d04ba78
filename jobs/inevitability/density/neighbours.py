"""The peak of a density by distances to nearest neighbours."""

import math

import numpy as np
import torch

from jobs.inevitability.bounds.caps import log_ball_volume
from jobs.inevitability.density.estimate import DensityEstimate, Images, check_images, estimate_of
from service.errors import FieldError

CHUNK = 1024
"""images whose distances to all others are in memory at once"""
SPARE = 8
"""candidates beyond k, of which the nearest are chosen after their distances are computed without cancellation"""


def nearest_neighbours(images: Images, k: int = 5) -> DensityEstimate:
    """log k - log(N - 1) - log V_n - n log r_k at the image where it is largest, r_k the L2 distance to the k-th other.

    Images that are equal have no distance: the value is then infinity, and a note says how many there are. k plays the
    part of a bandwidth. FieldError: k below 1, or fewer than k + 1 images.
    Source: Loftsgaarden & Quesenberry 1965.
    """
    if k < 1:
        raise FieldError("k", "be at least 1", k)
    check_images(images, least=k + 1)
    count, n = images.shape
    distances = kth_distances(images, k)
    least = float(distances.min())
    setting = f"k = {k} of {count} images, the {k}-th at {least:.4g} where it is nearest"
    if least == 0:
        equal = int((distances == 0).sum())
        note = f"{equal} images have {k} others that equal them: on this scale the class has no density"
        return estimate_of("k-NN", "estimate", math.inf, setting, n, (note,))
    value = math.log(k) - math.log(count - 1) - log_ball_volume(n) - n * math.log(least)
    return estimate_of("k-NN", "estimate", value, setting, n)


def kth_distances(images: Images, k: int) -> np.ndarray:
    """The L2 distance of each image to its k-th nearest other one: (count, n) -> (count,)."""
    points = torch.from_numpy(np.ascontiguousarray(images))
    squares = points.square().sum(1)
    chosen = min(k + 1 + SPARE, len(points))
    parts = []
    for start in range(0, len(points), CHUNK):
        rows, own = points[start : start + CHUNK], squares[start : start + CHUNK]
        products = torch.addmm(squares.expand(len(rows), -1), rows, points.T, alpha=-2) + own[:, None]
        places = products.topk(chosen, largest=False).indices  # the image itself is one of them
        exact = torch.stack([(points[places[:, j]] - rows).norm(dim=1) for j in range(chosen)], dim=1)
        parts.append(exact.sort(dim=1).values[:, k])
    return torch.cat(parts).numpy()
