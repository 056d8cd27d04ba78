"""What a spec of the study says."""

from typing import Self

from pydantic import Field, model_validator

from jobs.common.attacks import Ball
from jobs.common.data.images import DataParams
from jobs.common.models.cards import PublishingParams
from jobs.common.models.classifier_params import ClassifierParams
from jobs.common.training.adversarial.methods import MethodParams
from jobs.common.training.adversarial.methods.free import Free
from jobs.common.training.adversarial.threat import ThreatParams
from jobs.common.training.adversarial.training import TrainingParams
from jobs.free_training.evaluation import EvaluationParams
from service.errors import FieldError


class Params(PublishingParams):
    """One network, trained by one method and attacked afterwards."""

    data: DataParams = Field(DataParams(), description="the images to classify")
    network: ClassifierParams = Field(ClassifierParams(), description="the network")
    threat: ThreatParams = Field(description="what the network is to withstand")
    method: MethodParams = Field(Free(), description="how it is trained")
    training: TrainingParams = Field(TrainingParams(), description="what all methods share")
    evaluation: EvaluationParams = Field(EvaluationParams(), description="what the trained network is attacked with")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        """Each part knows the threat. Whether network and data fit is seen at the start."""
        for epsilon in self.epsilons:
            place = "threat.epsilon" if epsilon == self.threat.epsilon else "evaluation.epsilons"
            try:
                Ball(self.threat.norm, epsilon)
            except FieldError as error:
                raise FieldError(place, error.requirement, error.value, error.hint) from error
        if self.method.replays > self.training.updates:
            limit = f"be at most {self.training.updates}, the number of updates"
            raise FieldError("method.replay", limit, self.method.replays)
        for name, attack in self.evaluation.attacks.items():
            if self.threat.norm not in attack.norms:
                known = f"be an attack that knows {self.threat.norm}"
                raise FieldError(f"evaluation.attacks.{name}.kind", known, attack.kind)
        return self

    @property
    def epsilons(self) -> tuple[float, ...]:
        """All radii that the network is attacked at, ascending."""
        return tuple(sorted({self.threat.epsilon, *self.evaluation.epsilons}))

    @property
    def name_parts(self) -> tuple[str, ...]:
        return self.data.name, self.network.name, self.method.label
