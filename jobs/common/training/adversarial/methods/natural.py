"""Training on the images as they are."""

from typing import Literal

from pydantic import Field
from torch import Tensor

from jobs.common.attacks.ball import Ball
from jobs.common.training.adversarial.methods.base import Method, Outcome
from jobs.common.training.adversarial.objective import Objective


class Natural(Method):
    """No perturbation. Replaying minibatches alone shows what that costs (Shafahi et al. 2019, section 4)."""

    kind: Literal["natural"] = Field("natural", description="no perturbation")
    replay: int = Field(1, ge=1, le=1000, description="weight updates in a row from one minibatch")

    @property
    def label(self) -> str:
        return "natural" if self.replay == 1 else f"natural, replay {self.replay}"

    @property
    def adversarial(self) -> bool:
        return False

    @property
    def replays(self) -> int:
        return self.replay

    def update(self, objective: Objective, images: Tensor, labels: Tensor, delta: Tensor, ball: Ball) -> Outcome:
        logits = objective.logits(images)
        loss = objective.loss(logits, labels)
        objective.backward(loss)
        return Outcome(loss.detach(), logits.detach(), delta)
