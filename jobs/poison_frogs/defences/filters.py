"""Filters that look for poisons in a training set before a victim is trained on it, and how well they do.

All take the features of the training points under a clean network, (N, D), and their labels, int64 (N,), and return
which points to keep, bool (N,). None is told which points are poisons, or which class is attacked. Sources: deep k-NN,
Peri et al. 2020; L2 outliers, Steinhardt et al. 2017, as run by Peri et al.; spectral signatures, Tran et al. 2018,
algorithm 1; activation clustering, Chen et al. 2018, and the code of Geiping et al. for the choice by size.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from service.errors import FieldError, InputError

MOST_DISTANCES = 1 << 24  # held at a time, whatever the number of points
MOST_ROUNDS = 300  # of 2-means, which settle after a few


def deep_knn(features: Tensor, labels: Tensor, k: int, chunk: int | None = None) -> Tensor:
    """Drop a point if another label than its own is more frequent among its k nearest neighbours.

    The point itself is none of them; on a tie with its own label it is kept. (The released code counts the point as
    its own neighbour and gives ties to the smaller label.) Of neighbours at equal distance any may be the k-th.

    k: 1 to N - 1. `starved` says which classes are too small for it. chunk: points whose distances to all are held at a
    time; None: as many as memory is meant for. InputError if k is out of bounds.
    """
    labels = _checked(features, labels)
    count = len(features)
    check_neighbours(k, count)
    chunk = chunk or max(1, MOST_DISTANCES // count)
    classes, codes = torch.unique(labels, return_inverse=True)
    centred = features - features.mean(0)  # distances are differences of squares, which are small near the origin
    keep = []
    for first in range(0, count, chunk):
        rows = torch.arange(first, min(count, first + chunk), device=labels.device)
        distances = torch.cdist(centred[rows], centred)  # (chunk, N)
        distances[torch.arange(len(rows), device=labels.device), rows] = torch.inf
        nearest = codes[distances.topk(k, largest=False, sorted=False).indices]  # (chunk, k)
        votes = nearest.new_zeros(len(rows), len(classes)).scatter_add_(1, nearest, torch.ones_like(nearest))
        keep.append(votes.gather(1, codes[rows, None]).squeeze(1) >= votes.amax(1))
    return torch.cat(keep)


def check_neighbours(k: int, count: int) -> None:
    """FieldError unless each of so many points has k others."""
    if not 1 <= k < count:
        raise FieldError("k", f"be 1 to {count - 1}, the number of other points", k)


def starved(labels: Tensor, k: int) -> tuple[int, ...]:
    """The labels that deep k-NN can drop as a whole, poisoned or not.

    A class of m points has m - 1 votes for each of its own, and where k > 2 (m - 1) another class can have more,
    however well the features tell them apart. labels: int64 (N,).
    """
    present, sizes = torch.unique(labels, return_counts=True)
    return tuple(present[k > 2 * (sizes - 1)].tolist())


def l2_outliers(features: Tensor, labels: Tensor, share: float) -> Tensor:
    """Drop the points of each class that are farthest from its centroid.

    share: of a class that is dropped, in [0, 1), rounded down to whole points. A class of one point keeps it.
    """
    labels = _checked(features, labels)
    if not 0 <= share < 1:
        raise FieldError("share", "be at least 0 and below 1", share)
    keep = torch.ones_like(labels, dtype=torch.bool)
    for rows in _classes(labels):
        centred = features[rows].double() - features[rows].double().mean(0)
        dropped = math.floor(share * len(rows) + 1e-9)  # 0.29 * 100 is 28.999...
        keep[rows[centred.norm(dim=1).topk(dropped).indices]] = False
    return keep


def spectral_signatures(features: Tensor, labels: Tensor, poisons: int, factor: float = 1.5) -> Tensor:
    """Drop the points of each class that lie farthest along its direction of largest variance.

    The score of a point is ((x - mean) . v)^2, v the first right singular vector of the centred features. (The released
    code and ART score x itself, which is not what the paper says.) poisons: how many are assumed to be in a class, at
    least 1: what a defender must guess. factor: times that many are dropped, rounded up. A class of one point, or whose
    points are all alike, has no direction and keeps all. InputError if as many would be dropped as a class has points.
    """
    labels = _checked(features, labels)
    if poisons < 1:
        raise FieldError("poisons", "be at least 1", poisons)
    if not factor >= 1:
        raise FieldError("factor", "be at least 1", factor)
    dropped = dropped_of_class(poisons, factor)
    keep = torch.ones_like(labels, dtype=torch.bool)
    for rows in _classes(labels):
        centred = features[rows].double() - features[rows].double().mean(0)
        if len(rows) < 2 or _alike(centred, features[rows]):
            continue
        check_dropped(dropped, labels[rows])
        left, _, _ = torch.linalg.svd(centred, full_matrices=False)  # (x - mean) . v is a multiple of u
        keep[rows[left[:, 0].square().topk(dropped).indices]] = False
    return keep


def dropped_of_class(poisons: int, factor: float) -> int:
    """How many points of each class spectral signatures drop."""
    return math.ceil(factor * poisons - 1e-9)


def check_dropped(dropped: int, labels: Tensor) -> None:
    """FieldError if so many would be all points of a class of two or more. labels: int64 (n,)."""
    for label, size in zip(*torch.unique(labels, return_counts=True), strict=True):
        if 2 <= size <= dropped:
            requirement = f"be below {size}, the number of points of class {label}"
            raise FieldError("factor * poisons", requirement, dropped, hint="assume fewer poisons")


def activation_clustering(
    features: Tensor, labels: Tensor, dimensions: int | None = 10, largest_share: float = 0.5
) -> Tensor:
    """Split each class in two by 2-means, and drop its smaller cluster.

    dimensions: principal components that are looked at; None: the features as they are. largest_share: of a class that
    is believed to be poison: a smaller cluster with a larger share stays. At 0.5 one always goes, but for two of equal
    size, which both stay, as do the points of a class that are fewer than 2 or all alike.
    """
    labels = _checked(features, labels)
    if dimensions is not None and dimensions < 1:
        raise FieldError("dimensions", "be at least 1", dimensions)
    if not 0 < largest_share <= 0.5:
        raise FieldError("largest_share", "be above 0 and at most 0.5", largest_share)
    keep = torch.ones_like(labels, dtype=torch.bool)
    for rows in _classes(labels):
        centred = features[rows].double() - features[rows].double().mean(0)
        if len(rows) < 2 or _alike(centred, features[rows]):
            continue
        second = two_means(centred, dimensions)
        smaller = second if 2 * int(second.sum()) <= len(rows) else ~second
        share = int(smaller.sum()) / len(rows)
        if share < 0.5 and share <= largest_share:
            keep[rows[smaller]] = False
    return keep


def two_means(centred: Tensor, dimensions: int | None = None) -> Tensor:
    """Two clusters of points whose mean is zero: Lloyd's algorithm from a cut across the first principal component.

    That cut is the relaxed optimum (Ding & He 2004), so that no seed is needed. centred: (m, D), m at least 2 and not
    all alike. dimensions: principal components that are looked at. Returns which are in the second, bool (m,).
    """
    left, spread, _ = torch.linalg.svd(centred, full_matrices=False)
    points = left[:, :dimensions] * spread[:dimensions]  # the distances between points are the same as before
    second: Tensor = points[:, 0] > 0
    for _ in range(MOST_ROUNDS):
        one, two = points[~second].mean(0), points[second].mean(0)
        moved = (points - two).square().sum(1) < (points - one).square().sum(1)
        if torch.equal(moved, second):
            break
        second = moved
    return second


def _classes(labels: Tensor) -> Iterator[Tensor]:
    """The rows of each class that is there: int64 (m,)."""
    for label in torch.unique(labels):
        yield (labels == label).nonzero().squeeze(1)


def _alike(centred: Tensor, points: Tensor) -> bool:
    """Whether all points are one, up to the rounding of their mean."""
    return bool(centred.abs().max() <= 1e-12 * points.abs().max())


def _checked(features: Tensor, labels: Tensor) -> Tensor:
    """The labels as int64. InputError unless there is one for each row of finite features."""
    if features.ndim != 2 or not features.numel() or labels.shape != features.shape[:1]:
        raise InputError(f"labels {tuple(labels.shape)} do not fit features {tuple(features.shape)}: (N,) and (N, D)")
    if not bool(torch.isfinite(features).all()):
        raise InputError("features of training points are not finite: no distance can be measured")
    if labels.is_floating_point() or int(labels.min()) < 0:
        raise InputError(f"labels must be whole numbers from 0 on, not {labels.dtype} from {labels.min().item()}")
    return labels.long()
