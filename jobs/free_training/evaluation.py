"""How robust a trained network is on test images: several attacks, one radius or several, and the worst of them all."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from pydantic import Field
from torch import Tensor, nn

from jobs.common.attacks import PGD, AttackParams, Ball
from jobs.common.data.images.base import ImageSet
from jobs.common.metrics.classification import accuracy_of_classes, predictions
from jobs.common.params import ONCE, Name, StudyParams
from jobs.common.robustness.accuracy import Verdict, attacked


class EvaluationParams(StudyParams):
    """What the trained network is attacked with, on the test images (`data.test_limit` says how many)."""

    attacks: dict[Name, AttackParams] = Field(
        {"pgd_20": PGD(steps=20, step_size=0.25)}, min_length=1, description="attacks by a name of your choice"
    )
    epsilons: Annotated[tuple[float, ...], ONCE] = Field((), description="radii of the ball besides that of training")
    batch: int = Field(100, ge=1, le=100_000, description="images attacked at once; results depend on it")


@dataclass(frozen=True)
class Attacked:
    """What one attack did within one ball."""

    name: str
    ball: Ball
    verdict: Verdict


@dataclass(frozen=True)
class Evaluation:
    """What was measured. Accuracies are shares of the images in [0, 1]."""

    right: Tensor
    """bool (images,): classified correctly"""
    classes: list[dict[str, Any]]
    """of each class the number of images and the clean accuracy"""
    attacks: tuple[Attacked, ...]

    @property
    def clean(self) -> float:
        return _share(self.right)

    def robust(self, ball: Ball) -> float:
        """The share that is robust to all attacks within a ball."""
        robust = self.right
        for each in self.attacks:
            if each.ball == ball:
                robust = robust & each.verdict.robust
        return _share(robust)

    def robust_to(self, ball: Ball) -> dict[str, float]:
        """The share that is robust to each attack within a ball."""
        return {each.name: _share(each.verdict.robust) for each in self.attacks if each.ball == ball}

    def rows(self) -> list[dict[str, Any]]:
        """A row for each attack and ball. queries, gradients: passes spent on an image, in the mean."""
        return [
            {
                "attack": each.name,
                "norm": each.ball.norm,
                "epsilon": each.ball.epsilon,
                "images": len(self.right),
                "clean": self.clean,
                "robust": _share(each.verdict.robust),
                "queries": float(each.verdict.queries.double().mean()),
                "gradients": float(each.verdict.gradients.double().mean()),
            }
            for each in self.attacks
        ]


def evaluate(
    network: nn.Module,
    images: ImageSet,
    balls: Sequence[Ball],
    params: EvaluationParams,
    seed_for: Callable[..., int],
) -> Evaluation:
    """Attack a network with everything, within each ball. network: in evaluation mode."""
    attacks = [
        Attacked(name, ball, attacked(network, images, attack, ball, params.batch, partial(seed_for, name)))
        for name, attack in params.attacks.items()
        for ball in balls
    ]
    predicted = predictions(network, images, params.batch)
    classes = accuracy_of_classes(predicted, images.labels, images.classes)
    return Evaluation(predicted == images.labels, classes, tuple(attacks))


def _share(flags: Tensor) -> float:
    return float(flags.double().mean())
