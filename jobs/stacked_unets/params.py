"""What a spec of the study says."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from jobs.common.data.masks import DataParams
from jobs.common.models.cards import PublishingParams
from jobs.common.models.classifiers.sunet import OUTPUT_STRIDES
from jobs.common.params import ONCE, Name, StudyParams
from jobs.stacked_unets.network_params import NetworkParams
from jobs.stacked_unets.prediction import PredictionParams
from jobs.stacked_unets.training import TrainingParams
from service.errors import FieldError


class EvaluationParams(StudyParams):
    """How the trained network is measured."""

    ways: dict[Name, PredictionParams] = Field(
        {"single": PredictionParams()}, min_length=1, description="ways of testing, by name; the first one counts most"
    )
    output_strides: Annotated[tuple[int, ...], ONCE] = Field(
        (), description="output strides at which the same weights are tested as well; stacked u-nets only"
    )
    leave_out: bool = Field(True, description="test without each of the u-nets, to see what it contributes")
    shown: int = Field(5, ge=0, le=50, description="test images in the pictures")


class Params(PublishingParams):
    """One network, trained on one data set and measured."""

    data: DataParams = Field(DataParams(), description="the images to segment")
    network: NetworkParams = Field(NetworkParams(), description="the network")
    training: TrainingParams = Field(TrainingParams(), description="how it is trained")
    evaluation: EvaluationParams = Field(EvaluationParams(), description="how it is measured")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        """Only what the network has is asked for. Whether network and data fit is seen at the start."""
        strides, ways = self.evaluation.output_strides, self.evaluation.ways
        if strides and not (self.network.built_in and self.network.name.startswith("sunet")):
            raise ValueError(f"evaluation.output_strides: {self.network.name!r} has no other output strides")
        if wrong := [each for each in strides if each not in OUTPUT_STRIDES]:
            raise FieldError("evaluation.output_strides", "be of 32, 16 and 8", wrong[0])
        for name in ways:
            if name.startswith("stride_"):
                requirement = "be names that do not begin with stride_, as the metrics of output strides do"
                raise FieldError("evaluation.ways", requirement, name)
        return self

    @property
    def name_parts(self) -> tuple[str, ...]:
        return self.data.name, self.network.name
