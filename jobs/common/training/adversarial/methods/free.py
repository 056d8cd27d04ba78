"""Adversarial training for free: one backward pass moves the weights down the loss and the perturbation up.

Source: Shafahi et al. 2019, "Adversarial Training for Free!", algorithm 1, and the code released with it.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from jobs.common.attacks.ball import Ball, ascent_direction, random_in_ball
from jobs.common.training.adversarial.methods.base import Method, Outcome
from jobs.common.training.adversarial.objective import Objective


class Free(Method):
    """Free-m: each minibatch is shown m times in a row, and the perturbation goes on to the next one."""

    kind: Literal["free"] = Field("free", description="weights and perturbation move by the same backward pass")
    replay: int = Field(8, ge=1, le=1000, description="m: weight updates in a row from one minibatch")
    step: float = Field(1.0, gt=0, le=2, description="length of a step of the perturbation, in units of epsilon")
    delta: Literal["carry", "zero", "random"] = Field(
        "carry", description="a new minibatch begins with the perturbation of the last one, with none, or a random one"
    )
    project: bool = Field(False, description="keep image + perturbation within [0, 1] after each step")

    @property
    def label(self) -> str:
        return f"Free-{self.replay}"

    @property
    def replays(self) -> int:
        return self.replay

    @property
    def carries(self) -> bool:
        return True

    def fresh(self, images: Tensor, ball: Ball, generator: torch.Generator) -> Tensor | None:
        match self.delta:
            case "carry":
                return None
            case "zero":
                return torch.zeros_like(images)
            case "random":
                return random_in_ball(images, ball, generator) - images

    def update(self, objective: Objective, images: Tensor, labels: Tensor, delta: Tensor, ball: Ball) -> Outcome:
        now = delta[: len(images)].detach().requires_grad_()
        logits = objective.logits((images + now).clamp(0, 1))  # no gradient for what leaves the range of pixels
        loss = objective.loss(logits, labels)
        objective.backward(loss)
        assert now.grad is not None
        moved = ascend(now.detach(), now.grad * objective.rows, ball, self.step)
        if self.project:
            moved = (images + moved).clamp(0, 1) - images
        return Outcome(loss.detach(), logits.detach(), torch.cat([moved, delta[len(images) :]]))


def ascend(delta: Tensor, gradient: Tensor, ball: Ball, step: float) -> Tensor:
    """A step of a perturbation up the loss and back into the ball, wherever the pixels are.

    delta, gradient: (batch, channels, height, width). step: in units of epsilon.
    """
    moved = torch.add(delta, ascent_direction(gradient, ball.norm), alpha=step * ball.epsilon)
    if ball.norm == "Linf":
        return moved.clamp_(-ball.epsilon, ball.epsilon)
    norms = ball.norms(moved).view(-1, 1, 1, 1)
    return moved * (ball.epsilon / norms.clamp(min=ball.epsilon))
