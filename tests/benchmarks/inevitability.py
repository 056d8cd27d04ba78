"""How fast and in how much memory a concentration is measured, against a direct reading of the published searches.

Fashion-MNIST, or what there is of MNIST inside a package, on one thread. The direct readings go as the algorithms are
printed, and as the released code does: a projection, a sort and a count for each component, power and epsilon; the
distances from each centre anew for each ball; loops over points and boxes. Both ways have the same points, components,
centres and seeds, and must end with the same counts. The readings take hours on all of the data, so they are timed on a
part: of the components, or of the points. Then the searches on all the points, each in a process of its own.
"""

import math
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jobs.common.data.images import DataParams
from jobs.inevitability.concentration import balls, boxes, distances, half_spaces, measure
from jobs.inevitability.concentration.methods import METHODS
from jobs.inevitability.concentration.samples import Sample
from service.errors import AssayError

ALPHA, EPSILONS = 0.05, (0.05, 0.1, 0.2)
COMPONENTS = 24
FEW = 1000  # points for balls and boxes
BALLS, BOXES, NEIGHBOURS, ITERATIONS = 5, 5, 50, 30
SEED = 0


def samples() -> tuple[Tensor, Tensor, str]:
    """Training and test points (n, d), and what they are."""
    for name in ("fashion_mnist", "mnist_5k"):
        try:
            splits = DataParams(name=name).load_splits()
        except AssayError as error:
            print(f"{name}: {error}")
            continue
        train, test = (each.images(torch.arange(len(each))).flatten(1) for each in splits)
        return train, test, name
    raise SystemExit("there are no images to measure")


def direct_half_spaces(points: np.ndarray, directions: np.ndarray, errors: int, epsilon: float) -> int:
    """The fewest points in an expansion in Linf, one projection, one sort and one count for each power."""

    def expansion(direction: np.ndarray, exponent: float) -> int:
        relative = np.abs(direction) / np.abs(direction).max()
        normal = np.sign(direction) * relative**exponent
        normal[relative**exponent < half_spaces.NEGLIGIBLE] = 0
        projections = points @ (normal / np.abs(normal).sum())
        projections.sort()
        counts = []
        for ascending in (projections, -projections[::-1]):
            reach, count = ascending[errors - 1] + epsilon + 1e-6, errors
            while count < len(ascending) and ascending[count] <= reach:
                count += 1
            counts.append(count)
        return min(counts)

    best = len(points) + 1
    for direction in directions.T:
        exponent, least = 1.0, expansion(direction, 1.0)
        while (count := expansion(direction, exponent + 10)) < least:
            exponent, least = exponent + 10, count
        around = np.arange(1.5, 11, 0.5) if exponent == 1 else exponent + np.r_[-9:0, 1:10]
        best = min(best, least, *(expansion(direction, each) for each in around))
    return best


def direct_balls(points: Tensor, count: int, errors: int, epsilon: float) -> tuple[int, int]:
    """Points in the balls and in their expansion: for each ball the distances from every centre to every point."""
    covered, reached = torch.zeros(2, len(points), dtype=torch.bool)
    for left in range(count, 0, -1):
        due = errors - int(covered.sum())
        if due <= 0:
            break
        least, best = len(points) + 1, (covered, reached)
        for centre in points:
            lengths = (points - centre).square().sum(1).sqrt()
            fresh = lengths[~covered].sort().values
            for size in range(math.ceil(due / left), due + 1):
                radius = fresh[size - 1] + 1e-5
                inside = (lengths <= radius) & ~covered
                around = (lengths <= radius + epsilon) & ~reached
                if (growth := int(around.sum()) - int(inside.sum())) < least:
                    least, best = growth, (inside, around)
        covered, reached = covered | best[0], reached | best[1]
    return int(covered.sum()), int(reached.sum())


def direct_boxes(points: np.ndarray, count: int, errors: int, epsilon: float) -> tuple[int, int]:
    """Points outside of the widened boxes and of the boxes: loops over points and boxes."""
    table = np.array([np.abs(points - each).sum(1) for each in points])
    densest = np.sort(table, axis=1)[:, NEIGHBOURS - 1].argsort(kind="stable")
    low, high, best = 0.0, 1.0, (0, len(points) + 1)
    while high - low > boxes.PRECISION:
        share = (low + high) / 2
        chosen = points[densest[: int(len(points) * share)]]
        drawn = torch.randperm(len(chosen), generator=torch.Generator().manual_seed(SEED))[:count]
        centres, labels = chosen[drawn.numpy()], np.full(len(chosen), -1)
        for _ in range(ITERATIONS):
            nearest = np.array([np.argmin([np.abs(each - centre).sum() for centre in centres]) for each in chosen])
            if (nearest == labels).all():
                break
            labels = nearest
            centres = np.array([chosen[labels == box].mean(0) for box in range(count)])
        widths = [np.abs(chosen[labels == box] - centres[box]).max(0) for box in range(count)]
        excess = [min((np.abs(p - c) - w).max() for c, w in zip(centres, widths, strict=True)) for p in points]
        inside, outside = (sum(each > bound + 1e-6 for each in excess) for bound in (epsilon, 0.0))
        if inside >= errors:
            low = share
            best = (inside, outside) if outside <= best[1] else best
        else:
            high = share
    return best


def timed(way: Callable[[], Any]) -> tuple[Any, float]:
    """What it gives, and seconds of processor time."""
    began = time.process_time()
    return way(), time.process_time() - began


def compare(name: str, ours: Callable[[], list[Any]], direct: Callable[[], list[Any]]) -> None:
    """Both ways once, their results and their times."""
    own, seconds = timed(ours)
    theirs, direct_seconds = timed(direct)
    same = "the same counts" if own == theirs else f"DIFFERENT: {own} and {theirs}"
    print(f"{name}: {seconds:.2f} s against {direct_seconds:.2f} s, {direct_seconds / seconds:.1f} times; {same}")


def main() -> None:
    torch.set_num_threads(1)
    train, test, name = samples()
    print(f"{len(train):,} points of {name}, alpha {ALPHA:g}, epsilons {', '.join(f'{each:g}' for each in EPSILONS)}")

    errors = math.ceil(ALPHA * len(train))
    components = half_spaces.principal_components(train).first(COMPONENTS)
    exact, directions = train.double().numpy(), components.directions.numpy()

    def halved() -> list[Any]:
        fits = half_spaces.search(train, components, math.inf, errors, EPSILONS)
        return [fit and fit.adversarial for fit in fits]

    compare(
        f"half-spaces in Linf, {COMPONENTS} components and their powers",
        halved,
        lambda: [direct_half_spaces(exact, directions, errors, epsilon) for epsilon in EPSILONS],
    )
    del exact

    few = train[:FEW]
    errors = math.ceil(ALPHA * FEW)

    def placed() -> list[Any]:
        around = balls.neighbourhoods(few, torch.arange(FEW), 2.0)
        fits = [balls.search(around, BALLS, errors, 10 * epsilon) for epsilon in EPSILONS]
        return [fit and (fit.errors, fit.adversarial) for fit in fits]

    compare(
        f"{BALLS} balls in L2, {FEW:,} points",
        placed,
        lambda: [direct_balls(few, BALLS, errors, 10 * epsilon) for epsilon in EPSILONS],
    )

    def boxed() -> list[Any]:
        densest = distances.neighbour_radii(few, NEIGHBOURS).argsort(stable=True)
        clusterings = boxes.Clusterings(few, densest, BOXES, ITERATIONS, SEED)
        fits = [boxes.search(clusterings, errors, epsilon) for epsilon in EPSILONS]
        return [fit and (fit.errors, fit.adversarial) for fit in fits]

    exact = few.double().numpy()
    compare(
        f"{BOXES} boxes in Linf, {FEW:,} points",
        boxed,
        lambda: [direct_boxes(exact, BOXES, errors, epsilon) for epsilon in EPSILONS],
    )
    for kind in METHODS:
        subprocess.run([sys.executable, "-c", f"from {__spec__.name} import whole; whole({kind!r})"], check=True)


def whole(kind: str) -> None:
    """One search on all the points, as it is by default: time and memory."""
    torch.set_num_threads(1)
    train, test, _ = samples()
    method = METHODS[kind]()
    p = method.norms[0] if method.norms else math.inf
    epsilons = EPSILONS if math.isinf(p) else tuple(10 * each for each in EPSILONS)
    measured, seconds = timed(lambda: measure(method, Sample(train), Sample(test), p, ALPHA, epsilons))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    risks = ", ".join(f"{each.test.adversarial_risk:.4f}" for each in measured if each)
    print(f"{kind} in L{p:g}, all {len(train):,} points: {seconds:.0f} s, at most {memory:.2f} GiB; risks {risks}")


if __name__ == "__main__":
    main()
