"""A network that is searched for without gradients, as a kind of the section `network`."""

from typing import Annotated, Literal

from pydantic import Field

from jobs.common.models.classifier_params import ClassifierParams
from jobs.common.params import StudyParams


class GuessAndCheck(StudyParams):
    """Weights are drawn anew until a network fits."""

    kind: Literal["guess_and_check"] = Field("guess_and_check", description="draw all weights anew in each round")


class PatternSearch(StudyParams):
    """Of steps along single weights the best is taken; where none is an improvement steps become shorter."""

    kind: Literal["pattern_search"] = Field("pattern_search", description="try steps along single weights")
    step: float = Field(1.0, gt=0, le=1e6, description="length of a step at first")
    shrink: float = Field(0.7, gt=0, lt=1, description="what it is multiplied with where no step is an improvement")


class GreedyRandom(StudyParams):
    """Of random changes of all weights the best is taken; where none is an improvement changes become smaller."""

    kind: Literal["greedy_random"] = Field("greedy_random", description="try Gaussian changes of all weights")
    step: float = Field(0.3, gt=0, le=1e6, description="standard deviation of a change at first")
    shrink: float = Field(0.7, gt=0, lt=1, description="what it is multiplied with where no change is an improvement")


Method = Annotated[GuessAndCheck | PatternSearch | GreedyRandom, Field(discriminator="kind")]


class SearchedNetwork(StudyParams):
    """A classifier whose weights are searched for until it fits every training image.

    Source: Chiang et al. 2023, "Loss Landscapes are All You Need".
    """

    kind: Literal["search"] = Field("search", description="search for its weights without gradients")
    classifier: ClassifierParams = Field(ClassifierParams(), description="the network, without batch norm")
    method: Method = Field(GuessAndCheck(), description="what is tried")
    networks: int = Field(1000, ge=1, le=1_000_000, description="networks in a round, computed together")
    rounds: int = Field(1000, ge=1, le=10_000_000, description="rounds after which the search ends without a fit")
    bound: float = Field(1.0, gt=0, le=1e6, description="weights are drawn uniformly from -bound to bound")
    report_every: int = Field(50, ge=1, description="rounds between two reports, each with a checkpoint")
