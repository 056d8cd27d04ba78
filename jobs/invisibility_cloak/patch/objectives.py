"""What a patch is optimised for: to be seen by nobody, or as something else.

Sources: Wu et al. 2020, equation 1 (the squared hinge on objectness), and the released code (the square of its mean);
Thys et al. 2019, "Fooling automated surveillance cameras" (objectness, class, or their product, the largest of an
image); Huang et al. 2023, "T-SEA" (the surest box of an image).
"""

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from jobs.common.detection.base import Detector, Priors
from jobs.common.detection.boxes import overlaps
from jobs.common.params import StudyParams
from jobs.invisibility_cloak.patch.targets import Targets
from service.errors import InputError, unknown

Score = Literal["objectness", "class", "product"]
EDGE = 1e-6  # of probabilities, so that their logarithms are finite


class HingeObjective(StudyParams):
    """Every prior's logit is to be below a margin; what is below it costs nothing."""

    kind: Literal["hinge"] = Field("hinge", description="squared hinge on every prior, of the paper")
    score: Score = Field(
        "objectness",
        description="objectness of every prior, whatever it shows (of detectors without, the class), class: the "
        "probability of the class to hide, or their product",
    )
    form: Literal["sum", "mean"] = Field(
        "sum",
        description="sum of squared hinges over an image's priors (the paper), or the square of the mean hinge of each "
        "level, in the mean over levels (its code)",
    )
    margin: float = Field(1.0, ge=-20, le=20, description="logits below its negative cost nothing")

    def loss(self, priors: Priors, label: int, targets: Targets, toward: int | None) -> Tensor:
        """A scalar, the mean over images. label: of the class to hide."""
        hinge = (logits_of(priors, self.score, label) + self.margin).clamp_min(0)  # (batch, priors)
        if self.form == "sum":
            return hinge.square().sum(1).mean()
        levels = torch.split(hinge, list(priors.levels) or hinge.shape[1], dim=1)
        return torch.stack([level.mean().square() for level in levels]).mean()


class MaximumObjective(StudyParams):
    """The largest score of an image is to be small; the gradient reaches one prior of each image."""

    kind: Literal["maximum"] = Field("maximum", description="the largest score of an image, of Thys et al. and T-SEA")
    score: Score = Field("product", description="objectness, class, or their product: the surest box of T-SEA")

    def loss(self, priors: Priors, label: int, targets: Targets, toward: int | None) -> Tensor:
        """A scalar in [0, 1], the mean over images. label: of the class to hide."""
        return torch.sigmoid(logits_of(priors, self.score, label)).amax(1).mean()


class TargetedObjective(StudyParams):
    """Priors on a person are to show another class."""

    kind: Literal["targeted"] = Field("targeted", description="the class is to be taken for another")
    toward: str = Field(description="name of the other class")
    overlap: float = Field(
        0.3, gt=0, le=1, description="intersection over union with the box from which a prior counts"
    )

    def loss(self, priors: Priors, label: int, targets: Targets, toward: int | None) -> Tensor:
        """A scalar, the mean cross entropy over priors on targets; 0 if there are none. label: to be left."""
        assert toward is not None
        near = torch.zeros(priors.corners.shape[:2], dtype=torch.bool, device=priors.corners.device)
        corners = targets.corners.to(priors.corners.device)
        for image in sorted(set(targets.images.tolist())):
            own = corners[targets.images.to(corners.device) == image]
            near[image] = overlaps(priors.corners[image].detach(), own).amax(1) >= self.overlap
        scores = priors.scores()
        wrong, right = (scores[..., each].clamp(EDGE, 1 - EDGE) for each in (toward, label))
        entropy = -wrong.log() - torch.log1p(-right)
        return (entropy * near).sum() / near.sum().clamp_min(1)


AnyObjective = Annotated[HingeObjective | MaximumObjective | TargetedObjective, Field(discriminator="kind")]


def logits_of(priors: Priors, score: Score, label: int) -> Tensor:
    """What is to be small, before a sigmoid: (batch, priors). label: of the class to hide."""
    if score == "objectness":
        return priors.logits(label)
    if score == "class":
        assert priors.classes is not None
        return torch.logit(priors.classes[..., label], eps=EDGE)
    return torch.logit(priors.scores()[..., label], eps=EDGE)


def check_objective(objective: AnyObjective, detectors: Sequence[Detector], image: Tensor) -> None:
    """InputError if a detector cannot be attacked so. image: (1, 3, height, width), to ask them with."""
    for detector in detectors:
        if isinstance(objective, TargetedObjective) and objective.toward not in detector.classes:
            raise unknown(f"class of {detector.name}", objective.toward, detector.classes)
        by_objectness = not isinstance(objective, TargetedObjective) and objective.score == "objectness"
        with torch.no_grad():
            priors = detector.priors(image)
        if priors.classes is None and not by_objectness:
            raise InputError(f"{detector.name} knows no classes: its objectness is all that can be attacked")
