"""TRADES: the cross entropy of the images, and how far the answers to the worst images near them are from theirs.

Source: Zhang et al. 2019, "Theoretically Principled Trade-off between Robustness and Accuracy", equation 5 and code.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from jobs.common.attacks import pgd
from jobs.common.attacks.ball import Ball
from jobs.common.training.adversarial.methods.base import Method, Outcome
from jobs.common.training.adversarial.objective import Crafting, Objective

NOISE = 1e-3  # standard deviation of the start: at the image itself the divergence has no gradient


class Trades(Method):
    """K steps and a pass of the images and of the worst ones: K + 2 gradient evaluations for each weight update."""

    kind: Literal["trades"] = Field("trades", description="cross entropy + beta x divergence of the answers nearby")
    beta: float = Field(6.0, gt=0, le=1000, description="weight of the divergence")
    steps: int = Field(10, ge=1, le=1000, description="K: steps of the attack")
    step: float = Field(0.225, gt=0, le=2, description="length of a step, in units of epsilon")
    crafting: Crafting = Field(
        "eval", description="batch norm while the adversarial images are made: of the batch (train) or tracked (eval)"
    )

    @property
    def label(self) -> str:
        return f"TRADES-{self.steps}"

    @property
    def passes(self) -> int:
        return self.steps + 2  # the clean images and the perturbed ones

    def fresh(self, images: Tensor, ball: Ball, generator: torch.Generator) -> Tensor | None:
        return NOISE * torch.empty_like(images).normal_(generator=generator)

    def update(self, objective: Objective, images: Tensor, labels: Tensor, delta: Tensor, ball: Ball) -> Outcome:
        points = ball.project(images + delta[: len(images)], images)
        with objective.crafting(self.crafting):
            with torch.no_grad():
                answers = objective.logits(images).log_softmax(1)
            for _ in range(self.steps):
                gradient = objective.pixel_gradient(points, lambda logits: divergence(answers, logits.log_softmax(1)))
                points = pgd.step(points, gradient, ball, self.step, images)

        logits, nearby = objective.logits(images), objective.logits(points)
        apart = divergence(logits.log_softmax(1), nearby.log_softmax(1)) / len(images)
        loss = objective.loss(logits, labels) + self.beta * objective.part_of_mean(apart, len(images))
        objective.backward(loss, evaluations=2)
        return Outcome(loss.detach(), nearby.detach(), delta)


def divergence(answers: Tensor, others: Tensor) -> Tensor:
    """Kullback-Leibler divergence KL(answers || others), summed over the batch, in nats.

    answers, others: logarithms of probabilities (batch, classes).
    """
    return functional.kl_div(others, answers, reduction="sum", log_target=True)
