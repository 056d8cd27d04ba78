"""What a spec says about the search for a patch."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from jobs.common.params import Name, StudyParams
from jobs.common.training.schedules import StepDecay
from jobs.invisibility_cloak.patch.objectives import AnyObjective, HingeObjective
from jobs.invisibility_cloak.patch.regularisation import CutoutParams, PrintabilityParams, SmoothnessParams
from service.errors import FieldError

START = 1 / 3  # of the rate, from which it rises linearly; of the paper's code


class FixedWeights(StudyParams):
    """Detectors count as much as is said from the first iteration to the last."""

    kind: Literal["fixed"] = Field("fixed", description="as much as is said throughout")
    weights: dict[Name, Annotated[float, Field(ge=0, le=1e6)]] = Field(
        {}, description="of each detector's loss, by name; those that are not named count 1"
    )


class MinMaxWeights(StudyParams):
    """The detector that the patch fools least counts most: entropic mirror ascent on the simplex of weights.

    Each loss is relative to that of the first iteration, so that detectors with more priors do not count more.
    Source: Xu et al. 2020, "Adversarial T-shirt!", section 3.3, with the entropy in place of the squared norm.
    """

    kind: Literal["min_max"] = Field("min_max", description="the detector that is fooled least counts most")
    step_size: float = Field(0.05, gt=0, le=10, description="of the logarithms of the weights")
    regularisation: float = Field(
        0.5, ge=0, le=1000, description="how much equal weights are preferred: of their relative entropy"
    )

    @model_validator(mode="after")
    def _contracts(self) -> Self:
        if self.step_size * self.regularisation > 1:
            raise FieldError("step_size", f"be at most {1 / self.regularisation:g}, 1 / regularisation", self.step_size)
        return self


AnyWeights = Annotated[FixedWeights | MinMaxWeights, Field(discriminator="kind")]


class SearchParams(StudyParams):
    """How a patch is optimised: Adam (AMSGrad) on its pixels, which are cut off at 0 and 1 after every step."""

    size: tuple[int, int] = Field((250, 150), description="height and width of the patch, in pixels")
    iterations: int = Field(1000, ge=0, le=10_000_000, description="gradient steps; 0: the patch is used as it begins")
    batch: int = Field(8, ge=1, le=4096, description="images of an iteration; fewer if there are fewer")
    learning_rate: float = Field(0.1, gt=0, le=10, description="of Adam, in units of the range of colours")
    warm_up: int = Field(0, ge=0, description="iterations of a rise of the rate from a third; 500 in the paper's code")
    decay: StepDecay = Field(
        StepDecay(milestones=(0.5, 0.833), factor=0.1), description="how the rate falls; its ticks are iterations"
    )
    objective: AnyObjective = Field(HingeObjective(), description="what is minimised, for each detector")
    ensemble: AnyWeights = Field(FixedWeights(), description="how much each of several detectors counts")
    smoothness: SmoothnessParams = Field(SmoothnessParams(), description="total variation")
    printability: PrintabilityParams = Field(PrintabilityParams(), description="distance from a printer's colours")
    cutout: CutoutParams = Field(CutoutParams(), description="parts that are hidden while it is optimised")
    checkpoint_every: int = Field(100, ge=1, description="iterations of a piece of the work that a kill may cost")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not all(4 <= side <= 4096 for side in self.size):
            raise FieldError("size", "be from 4 to 4,096 pixels each way", self.size)
        return self

    def rate(self, iteration: int) -> float:
        """The learning rate of an iteration, counted from 0."""
        rise = min(1.0, START + (1 - START) * iteration / self.warm_up) if self.warm_up else 1.0
        return self.learning_rate * rise * self.decay.at(iteration, self.iterations)
