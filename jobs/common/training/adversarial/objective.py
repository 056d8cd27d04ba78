"""What training minimises and attacks maximise, with the counters of what it cost."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from jobs.common.training import parallel
from jobs.common.training.engine import Engine

Crafting = Literal["train", "eval"]


class Objective:
    """The mean cross entropy of a network over the global batch, and gradients of it by weights and by pixels.

    A gradient evaluation is one forward and backward pass of a batch. Each rank has its own rows of the batch.
    """

    def __init__(self, engine: Engine, rows: int, label_smoothing: float = 0.0) -> None:
        """rows: in the global batch. label_smoothing: share of the target spread over all classes, for weights only."""
        self.engine, self.network, self.rows = engine, engine.network, rows
        self.label_smoothing = label_smoothing
        self.evaluations = 0
        """gradient evaluations so far"""

    def logits(self, points: Tensor) -> Tensor:
        """points (batch, channels, height, width). Returns (batch, classes)."""
        return self.engine(points)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """What these rows add to the mean cross entropy of the global batch: a scalar in nats."""
        mean = functional.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        return self.part_of_mean(mean, len(labels))

    def part_of_mean(self, mean: Tensor, rows: int) -> Tensor:
        """What a mean over these rows adds to the mean over the global batch."""
        return parallel.part_of_mean(mean, rows, self.rows)

    def backward(self, loss: Tensor, evaluations: int = 1) -> None:
        """Add the gradient of a loss to that of every leaf. evaluations: passes of a batch that the loss is made of."""
        self.evaluations += evaluations
        self.engine.scaled(loss).backward()  # type: ignore[no-untyped-call]

    def pixel_gradient(self, points: Tensor, loss_of: Callable[[Tensor], Tensor]) -> Tensor:
        """The gradient of a loss by the points, at least in direction; weights get none.

        loss_of: of logits (batch, classes), summed over the batch: a mean would underflow in half precision.
        """
        self.evaluations += 1
        points = points.detach().requires_grad_()
        loss = self.engine.scaled(loss_of(self.logits(points)))
        (gradient,) = torch.autograd.grad(loss, points)
        return gradient

    @contextmanager
    def crafting(self, mode: Crafting) -> Iterator[None]:
        """Inside, batch norm takes the statistics of the batch (train: and tracks them) or the tracked ones (eval).

        Weights ask for no gradient there: a compiled backward pass would compute it, asked or not.
        """
        learning = [weight for weight in self.network.parameters() if weight.requires_grad]
        self.network.train(mode == "train")
        for weight in learning:
            weight.requires_grad_(False)
        try:
            yield
        finally:
            for weight in learning:
                weight.requires_grad_()
            self.network.train()
