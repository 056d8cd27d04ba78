"""Catastrophic overfitting: within an epoch a network loses its robustness to all but the step it is trained on."""

from pydantic import Field

from jobs.common.params import StudyParams


class OverfittingStop(StudyParams):
    """Go back and stop when robust accuracy on a training batch falls. Source: Wong et al. 2020, code."""

    drop: float = Field(0.2, gt=0, lt=1, description="fall of robust accuracy between two checks that stops training")
    every: int | None = Field(None, ge=1, description="weight updates between two checks; none: an epoch")
    steps: int = Field(5, ge=1, le=1000, description="steps of the PGD attack, each of a quarter of epsilon")
