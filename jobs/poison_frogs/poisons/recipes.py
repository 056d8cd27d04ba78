"""How poisons are made: the parameters of every attack, with the profiles that are named after their sources.

Pixels are in [0, 1] here. λ and β belong to the pixels that `pixel_range` names, as in the source of a profile.

Source: Shafahi et al. 2018, "Poison Frogs!", equations 1 to 3, algorithm 1; the released code for the profiles
code and code_end_to_end.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from jobs.common.params import StudyParams
from jobs.poison_frogs.poisons.gradient_matching import MatchingParams
from jobs.poison_frogs.poisons.polytope import PolytopeParams

Profile = Literal["paper", "code", "code_end_to_end"]

PROFILES: dict[Profile, dict[str, bool | float | str]] = {
    # algorithm 1 as printed; step size and control, of which the paper says nothing, are those of a small replica
    "paper": {},
    # the released code for transfer learning: plain distance, pixels to 255, windowed control, truncation
    "code": {
        "squared": False,
        "step": 127_500.0,
        "pixel_range": 255,
        "beta0": 0.2,
        "control": "window",
        "iterations": 1500,
        "stop_objective": 2.9,
        "quantise": "truncate",
    },
    # the released code for end-to-end training: steps of Adam, no clipping, no quantisation. The loss that a step is
    # judged by is measured after the backward step, not before it: the two differ by a pull of λβ = 0.001, and one
    # pass a step is saved
    "code_end_to_end": {
        "squared": False,
        "forward": "adam",
        "beta": 0.1,
        "control": "loss",
        "decay": 0.2,
        "iterations": 12_000,
        "stop_change": 1e-5,
        "clip": False,
        "quantise": "none",
    },
}
"""what each profile has instead of the defaults of `FeatureCollision`"""


class FeatureCollision(StudyParams):
    """Poisons that collide with their target in feature space, one by one (Shafahi et al. 2018, algorithm 1)."""

    kind: Literal["feature_collision"] = Field("feature_collision", description="poisons with the target's features")
    profile: Profile = Field(
        "paper",
        description="what the other fields are by default: paper, the values given here; code, as the released code "
        "for transfer learning; code_end_to_end, as the released code for end-to-end training",
    )
    squared: bool = Field(True, description="whether L is the squared distance of the features")
    forward: Literal["gradient", "adam"] = Field("gradient", description="rule of the forward step")
    step: float = Field(0.01, gt=0, le=1e9, description="λ at first; the learning rate of adam")
    pixel_range: Literal[1, 255] = Field(1, description="white in the pixels that step and beta belong to")
    beta0: float = Field(0.25, ge=0, le=1e6, description="β = beta0 (numbers in a feature / in an image)²")
    beta: float | None = Field(None, ge=0, le=1e9, description="β itself, instead of beta0")
    control: Literal["objective", "window", "loss"] = Field(
        "objective",
        description="a step is rejected and λ cut if the objective L + β/2 ‖x - b‖² rises; window: if, on 2 of 40 "
        "steps, it is not below the mean of the last 40 (without the square that of the released code, L + β ‖x - b‖); "
        "loss: if L does not fall",
    )
    decay: float = Field(0.5, gt=0, lt=1, description="what λ is multiplied with when a step is rejected")
    iterations: int = Field(100, ge=0, le=1_000_000, description="steps at most")
    stop_ratio: float | None = Field(
        None, gt=0, description="stop when the collision is below so many times the target's distance to its neighbour"
    )
    stop_distance: float | None = Field(None, gt=0, description="stop when the collision is below this")
    stop_objective: float | None = Field(None, gt=0, description="stop when the objective is not above this")
    stop_change: float = Field(1e-10, ge=0, lt=1, description="stop when a step changes the image by less, relatively")
    watermark: float = Field(0.0, ge=0, lt=1, description="γ: share of the target that is blended into the base first")
    epsilon: float | None = Field(
        None, gt=0, le=1, description="bound on the change of a pixel, for pixels in [0, 1]; none: no bound"
    )
    clip: bool = Field(True, description="keep pixels in [0, 1] after every step")
    quantise: Literal["round", "truncate", "none"] = Field(
        "round", description="how the image is brought to 256 shades; none: it stays as it is"
    )
    feature_noise: float = Field(
        0.0, ge=0, description="deviation of normal noise on the target's features, for several poisons of one base"
    )

    @model_validator(mode="before")
    @classmethod
    def _of_profile(cls, given: Any) -> Any:
        """What is not given is as the profile has it."""
        if isinstance(given, dict) and given.get("profile") in PROFILES:
            return PROFILES[given["profile"]] | given
        return given

    def weight(self, size: int, numbers: int) -> float:
        """β. size: numbers in a feature; numbers: in an image. Source: equation 2."""
        return self.beta0 * (size / numbers) ** 2 if self.beta is None else self.beta


class Polytope(PolytopeParams):
    """Poisons that enclose the target: bullseye or convex polytope, or the ensemble form of feature collision."""

    kind: Literal["polytope"] = Field("polytope", description="poisons of a target that enclose it in feature space")
    watermark: float = Field(0.0, ge=0, lt=1, description="share of the target that is blended into the bases first")


class Matching(MatchingParams):
    """Poisons whose training gradient is that which takes the target to the wrong class: Witches' Brew."""

    kind: Literal["gradient_matching"] = Field("gradient_matching", description="poisons of a matching gradient")


AttackParams = Annotated[FeatureCollision | Polytope | Matching, Field(discriminator="kind")]


class RetryParams(StudyParams):
    """What to do about a poison that did not come near enough."""

    above: float = Field(gt=0, description="collision above which the target's next base is tried")
    tries: int = Field(10, ge=2, le=1000, description="bases for a poison at most; the best try is kept")
