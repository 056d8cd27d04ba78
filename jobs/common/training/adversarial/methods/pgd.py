"""Training on adversarial images that are made anew for each minibatch.

Source: Madry et al. 2018, "Towards Deep Learning Models Resistant to Adversarial Attacks", section 2 and code.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from jobs.common.attacks import pgd
from jobs.common.attacks.ball import Ball, random_in_ball
from jobs.common.training.adversarial.methods.base import Method, Outcome
from jobs.common.training.adversarial.objective import Crafting, Objective


class AdversarialTraining(Method):
    """What methods share that train on nothing but adversarial images, made from a random start."""

    crafting: Crafting = Field(
        "train", description="batch norm while the adversarial images are made: of the batch (train) or tracked (eval)"
    )

    def fresh(self, images: Tensor, ball: Ball, generator: torch.Generator) -> Tensor | None:
        return random_in_ball(images, ball, generator) - images

    def learn(
        self, objective: Objective, images: Tensor, labels: Tensor, delta: Tensor, ball: Ball, steps: int, step: float
    ) -> Outcome:
        """Make the adversarial images from images + delta, and the gradients of the weights at them."""
        points = craft(objective, images, labels, delta[: len(images)], ball, steps, step, self.crafting)
        logits = objective.logits(points)
        loss = objective.loss(logits, labels)
        objective.backward(loss)
        return Outcome(loss.detach(), logits.detach(), delta)


class ProjectedGradient(AdversarialTraining):
    """K-PGD: K steps for each weight update, K + 1 gradient evaluations in all."""

    kind: Literal["pgd"] = Field("pgd", description="several steps of an attack for each weight update")
    steps: int = Field(7, ge=1, le=1000, description="K: steps of the attack")
    step: float = Field(0.25, gt=0, le=2, description="length of a step, in units of epsilon")

    @property
    def label(self) -> str:
        return f"PGD-{self.steps}"

    @property
    def passes(self) -> int:
        return self.steps + 1

    def update(self, objective: Objective, images: Tensor, labels: Tensor, delta: Tensor, ball: Ball) -> Outcome:
        return self.learn(objective, images, labels, delta, ball, self.steps, self.step)


def craft(
    objective: Objective,
    images: Tensor,
    labels: Tensor,
    delta: Tensor,
    ball: Ball,
    steps: int,
    step: float,
    mode: Crafting,
) -> Tensor:
    """Images in ball and box after so many steps up the cross entropy, from images + delta. step: in units of epsilon.

    images, delta: (batch, channels, height, width). Returns the same shape.
    """
    points = (images + delta).clamp(0, 1)
    with objective.crafting(mode):
        for _ in range(steps):
            gradient = objective.pixel_gradient(
                points, lambda logits: functional.cross_entropy(logits, labels, reduction="sum")
            )
            points = pgd.step(points, gradient, ball, step, images)
    return points
