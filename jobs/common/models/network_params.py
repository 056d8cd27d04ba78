"""The network that a study looks at: trained by the run itself, or one that is there."""

from typing import Literal

from pydantic import Field

from jobs.common.models.classifier_params import ClassifierParams
from jobs.common.models.reference import ModelReference
from jobs.common.params import StudyParams
from jobs.common.training.supervised import SupervisedParams


class TrainedNetwork(StudyParams):
    """A classifier that the run trains first, on the training images."""

    kind: Literal["train"] = Field("train", description="train it first")
    classifier: ClassifierParams = Field(ClassifierParams(), description="the network")
    training: SupervisedParams = Field(SupervisedParams(), description="how it is trained")


class StoredNetwork(ModelReference):
    """A network of the model store, or one that a function of the user's own returns."""

    kind: Literal["model"] = Field("model", description="one that is there, by name or by import path")
