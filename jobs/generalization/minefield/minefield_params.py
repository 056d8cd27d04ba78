"""The section `minefield` of a spec."""

from typing import Self

from pydantic import Field, model_validator

from jobs.common.params import StudyParams
from jobs.common.training.optimizers import OptimizerParams
from service.errors import FieldError


class MinefieldParams(StudyParams):
    """How bad minima are reached from the states of a good training, and how they are mapped."""

    share: float = Field(
        0.5, gt=0, lt=1, description="of the objective that is the reverse cross entropy of the poison"
    )
    updates: int = Field(2000, ge=1, le=10_000_000, description="weight updates, each with all images there are")
    optimizer: OptimizerParams = Field(
        OptimizerParams(kind="rmsprop", learning_rate=1e-3, weight_decay=0.0),
        description="how the weights are moved; its ticks are updates",
    )
    together: int = Field(32, ge=1, le=10_000, description="networks in a cell, which are computed together")
    perplexity: float = Field(30.0, gt=1, le=1000, description="of the map by t-SNE: about how many neighbours count")
    components: int = Field(50, ge=2, le=1000, description="principal axes that weights are reduced to before, at most")

    @model_validator(mode="after")
    def _apart(self) -> Self:
        """Networks in one cell do not change each other, as they would if the whole gradient had a bound."""
        if self.optimizer.clip is not None:
            raise FieldError("optimizer.clip", "be left out, as networks are trained together", self.optimizer.clip)
        if self.optimizer.kind == "lbfgs":
            raise FieldError("optimizer.kind", "be another one, as networks are trained together", self.optimizer.kind)
        return self

    def check(self, states: int) -> None:
        """FieldError unless the map has more than three times as many networks as neighbours.

        states: that are kept along the training; the map shows these and what they become.
        """
        if self.perplexity >= 2 * states / 3:
            most = f"be below {2 * states / 3:.4g}, a third of the {2 * states} networks on the map"
            raise FieldError("minefield.perplexity", most, self.perplexity)
