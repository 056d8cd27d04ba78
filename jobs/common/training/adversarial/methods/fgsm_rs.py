"""One step from a random start for each weight update, watched for the collapse that this is prone to.

Source: Wong et al. 2020, "Fast is better than free: Revisiting adversarial training", algorithm 3 and code.
"""

from typing import Literal

from pydantic import Field
from torch import Tensor

from jobs.common.attacks.ball import Ball
from jobs.common.training.adversarial.methods.base import Outcome
from jobs.common.training.adversarial.methods.pgd import AdversarialTraining
from jobs.common.training.adversarial.objective import Objective
from jobs.common.training.adversarial.overfitting import OverfittingStop


class RandomStartStep(AdversarialTraining):
    """FGSM-RS: two gradient evaluations for each weight update."""

    kind: Literal["fgsm_rs"] = Field("fgsm_rs", description="one step from a random start for each weight update")
    step: float = Field(1.25, gt=0, le=2, description="length of the step, in units of epsilon")
    stop: OverfittingStop | None = Field(
        OverfittingStop(), description="go back and stop when robustness collapses; none: never"
    )

    @property
    def label(self) -> str:
        return "FGSM-RS"

    @property
    def passes(self) -> int:
        return 2

    @property
    def overfitting_stop(self) -> OverfittingStop | None:
        return self.stop

    def update(self, objective: Objective, images: Tensor, labels: Tensor, delta: Tensor, ball: Ball) -> Outcome:
        return self.learn(objective, images, labels, delta, ball, 1, self.step)
