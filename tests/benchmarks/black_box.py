"""HopSkipJump against foolbox's at equal numbers of answers, where a model tells its predictions alone.

A network for digits of 28x28, trained against FGSM; in L2 and L-infinity. Foolbox takes as many answers as its steps
need; ours is given as many as it took on average. Printed are the medians of the distances, ours over foolbox's, and
CPU seconds.
"""

import logging
import time
import warnings

import torch
from torch import Tensor, nn

from jobs.common.attacks import Ball, HopSkipJump, Norm
from tests.jobs.common.attacks.trained import fast_mnist

IMAGES, STEPS = 16, (4, 12)
NORMS: tuple[Norm, ...] = ("L2", "Linf")


class Counted(nn.Module):
    """Counts the images that it is asked about."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.asked = net, 0

    def forward(self, images: Tensor) -> Tensor:
        self.asked += len(images)
        logits: Tensor = self.net(images)
        return logits


def main() -> None:
    import foolbox

    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    net, images, labels = fast_mnist()
    with torch.no_grad():
        right = (net(images).argmax(1) == labels).nonzero().squeeze(1)[:IMAGES]
    images, labels = images[right], labels[right]
    for norm in NORMS:
        ball = Ball(norm, 1.0)
        for steps in STEPS:
            counted = Counted(net).eval()
            theirs = foolbox.attacks.HopSkipJumpAttack(steps=steps, constraint=norm.lower())
            torch.manual_seed(0)
            began = time.process_time()
            points, _, _ = theirs(foolbox.PyTorchModel(counted, bounds=(0, 1)), images, labels, epsilons=None)
            seconds = time.process_time() - began
            queries = counted.asked // len(images)
            began = time.process_time()
            result = HopSkipJump(queries=queries).run(net, images, labels, ball)
            ours, other = result.minimum_distances, ball.distances(points, images)
            print(
                f"{norm:4} {queries:6,} answers: {ours.median():.4f} and {other.median():.4f} by foolbox, ratio "
                f"{ours.median() / other.median():.2f}; {time.process_time() - began:.1f} s and {seconds:.1f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
