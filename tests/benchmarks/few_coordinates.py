"""Attacks that change at most so many coordinates (L0): by gradient and by search, at as many passes.

    PGD           steps up the margin, projected; one start, and five shorter ones
    FMN           looks for the fewest changes by gradient
    sigma-zero    likewise, by another relaxation
    Sparse-RS     random search without gradients

A gradient counts as two passes. On the networks of `minimal_norm`, with images that are classified correctly, in one
batch, on one thread. Printed are the images on which each attack succeeds, alone and together, and CPU seconds.
"""

import time
import warnings

import torch

from jobs.common.attacks import FMN, PGD, Attack, Ball, SigmaZero, SparseRS
from tests.benchmarks.minimal_norm import NETWORKS, classified_correctly, trained

PASSES = 300
SHARES = (0.01, 0.03, 0.06)
"""of the coordinates of an image, that may change"""
IMAGES = 32


def attacks(passes: int) -> dict[str, Attack]:
    """Each with so many passes for an image that it does not succeed on, a gradient counted twice."""
    steps = passes // 2
    return {
        "PGD": PGD(steps=steps, loss="margin"),
        "PGD, 5 starts": PGD(steps=steps // 5, restarts=5, loss="margin"),
        "FMN": FMN(steps=steps),
        "sigma-zero": SigmaZero(steps=steps),
        "Sparse-RS": SparseRS(queries=passes),
    }


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for data, name, epsilon, updates in NETWORKS:
        net = trained(data, name, epsilon, updates)
        images, labels = (each[:IMAGES] for each in classified_correctly(net, data))
        kind = f"trained against {epsilon:.3g}" if epsilon else "trained naturally"
        print(f"{name} on {data}, {kind}: {len(images)} images", flush=True)
        for share in SHARES:
            ball = Ball("L0", max(1, round(share * images[0].numel())))
            counts, together = [], torch.zeros(len(images), dtype=torch.bool)
            for title, attack in attacks(PASSES).items():
                began = time.process_time()
                result = attack.run(net, images, labels, ball)
                together |= result.successful
                counts.append(f"{title} {int(result.successful.sum())} in {time.process_time() - began:.1f} s")
            successes = f"{'; '.join(counts)}; together {int(together.sum())}"
            print(f"  {int(ball.epsilon):3} coordinates, {PASSES} passes: {successes}", flush=True)


if __name__ == "__main__":
    main()
