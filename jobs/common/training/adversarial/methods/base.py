"""What a way of training is: how it moves a perturbation and makes the gradients of one weight update.

    delta = method.fresh(images, ball, generator)               # at a new minibatch; none: the one there is goes on
    outcome = method.update(objective, images, labels, delta, ball)
    optimizer.step()                                            # along the gradients that `update` left at the weights

All are functions on tensors: images and perturbations (batch, channels, height, width), pixels in [0, 1].
"""

from abc import abstractmethod
from typing import NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from jobs.common.attacks.ball import Ball
from jobs.common.params import StudyParams
from jobs.common.training.adversarial.objective import Objective
from jobs.common.training.adversarial.overfitting import OverfittingStop


class Outcome(NamedTuple):
    """What an update left besides the gradients."""

    loss: Tensor
    """scalar, detached: these rows' part of the mean over the global batch"""
    logits: Tensor
    """(batch, classes), detached: of the points that the weights learn from"""
    delta: Tensor
    """the perturbation afterwards"""


class Method(StudyParams):
    """The parameters of a way of training, and the training."""

    kind: str = Field(description="the name of the method")

    @property
    def label(self) -> str:
        """What figures and tables call it."""
        return self.kind

    @property
    def adversarial(self) -> bool:
        """Whether it aims at robust accuracy."""
        return True

    @property
    def replays(self) -> int:
        """How many weight updates are made in a row from one minibatch."""
        return 1

    @property
    def passes(self) -> int:
        """Gradient evaluations of a weight update: forward and backward passes of its minibatch."""
        return 1

    @property
    def carries(self) -> bool:
        """Whether the perturbation outlives a weight update, and so belongs to the state of training."""
        return False

    @property
    def overfitting_stop(self) -> OverfittingStop | None:
        """When robustness is taken to have collapsed."""
        return None

    def fresh(self, images: Tensor, ball: Ball, generator: torch.Generator) -> Tensor | None:
        """The perturbation of a new minibatch, of the shape of the images; none: the one there is goes on."""
        return None

    @abstractmethod
    def update(self, objective: Objective, images: Tensor, labels: Tensor, delta: Tensor, ball: Ball) -> Outcome:
        """Add the gradients of one weight update to the weights of the objective's network, which is in training mode.

        images: one row for each row of labels; delta: at least as many rows, of which the first are used.
        """
