"""Catastrophic overfitting: within an epoch a network loses its robustness to all but the step it is trained on."""

from dataclasses import dataclass, field

from pydantic import Field
from torch import Tensor, nn

from jobs.common.params import StudyParams


class OverfittingStop(StudyParams):
    """Go back and stop when robust accuracy on a training batch falls. Source: Wong et al. 2020, code."""

    drop: float = Field(0.2, gt=0, lt=1, description="fall of robust accuracy between two checks that stops training")
    every: int | None = Field(None, ge=1, description="weight updates between two checks; none: an epoch")
    steps: int = Field(5, ge=1, le=1000, description="steps of the PGD attack, each of a quarter of epsilon")


@dataclass
class Snapshot:
    """Weights, and how accurate they were."""

    accuracy: float = -1.0
    weights: dict[str, Tensor] = field(default_factory=dict)

    def take(self, accuracy: float, network: nn.Module) -> None:
        """Keep a copy of the network's weights."""
        self.accuracy = accuracy
        self.weights = {name: value.detach().clone() for name, value in network.state_dict().items()}
