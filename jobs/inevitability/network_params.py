"""The networks whose curves are measured, as sections of a spec."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from jobs.common.models.classifier_params import ClassifierParams
from jobs.common.models.network_params import StoredNetwork
from jobs.common.params import ONCE, StudyParams
from jobs.common.training.adversarial.methods import MethodParams
from jobs.common.training.adversarial.methods.natural import Natural
from jobs.common.training.adversarial.threat import ThreatParams
from jobs.common.training.adversarial.training import TrainingParams
from service.errors import FieldError


class TrainedNetwork(StudyParams):
    """A classifier that the run trains first, on the training images, anew at each resolution."""

    kind: Literal["train"] = Field("train", description="train it first")
    classifier: ClassifierParams = Field(ClassifierParams(), description="the network at resolution 1")
    scaled: Annotated[tuple[str, ...], ONCE] = Field(
        (), description="options of the classifier that are multiplied by the resolution, such as side or scale"
    )
    threat: ThreatParams = Field(
        ThreatParams(epsilon=0.1), description="what it is to withstand; at higher resolutions scaled as images are"
    )
    method: MethodParams = Field(Natural(), description="how it is trained")
    training: TrainingParams = Field(TrainingParams(), description="what all methods share")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for name in self.scaled:
            value = self.classifier.options.get(name)
            if not isinstance(value, int) or isinstance(value, bool):
                raise FieldError("scaled", "name options of the classifier that are whole numbers", name)
        if self.method.replays > self.training.updates:
            limit = f"be at most {self.training.updates}, the number of updates"
            raise FieldError("method.replay", limit, self.method.replays)
        return self

    def classifier_at(self, resolution: int) -> ClassifierParams:
        """The classifier for images whose pixels are replicated `resolution` times in each direction."""
        options = {**self.classifier.options}
        for name in self.scaled:
            options[name] = resolution * int(str(options[name]))
        return self.classifier.model_copy(update={"options": options})


NetworkParams = Annotated[TrainedNetwork | StoredNetwork, Field(discriminator="kind")]
