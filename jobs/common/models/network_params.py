"""The network that a study looks at: trained by the run itself, or one that is there."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from torch import nn

from jobs.common.data.images.base import ImageSet
from jobs.common.models.classifier_params import ClassifierParams
from jobs.common.models.classifiers import classifier, published_inception_v3
from jobs.common.models.reference import ModelReference, ReferredModel
from jobs.common.models.weights_file import load_weights
from jobs.common.params import StudyParams
from jobs.common.training.supervised import SupervisedParams
from service.run import Run


class TrainedNetwork(StudyParams):
    """A classifier that the run trains first, on the training images."""

    kind: Literal["train"] = Field("train", description="train it first")
    classifier: ClassifierParams = Field(ClassifierParams(), description="the network")
    training: SupervisedParams = Field(SupervisedParams(), description="how it is trained")


class StoredNetwork(ModelReference):
    """A network of the model store, or one that a function of the user's own returns."""

    kind: Literal["model"] = Field("model", description="one that is there, by name or by import path")


class PublishedNetwork(StudyParams):
    """A classifier with weights that its authors published, as torchvision has them."""

    kind: Literal["published"] = Field("published", description="an architecture with its published weights")
    name: Literal["inception_v3"] = Field("inception_v3", description="for images of 3x299x299, 1,000 classes")
    weights: str = Field("IMAGENET1K_V1", description="torchvision's name of them; fetched if they are not there")

    def load(self, run: Run) -> ReferredModel:
        """InputError if there are no such weights."""
        return ReferredModel(f"{self.name} ({self.weights})", published_inception_v3(self.weights).eval(), None)

    def untrained(self) -> nn.Module:
        """The same architecture with any weights, for what does not depend on them."""
        return classifier(self.name).eval()


class NetworkFile(StudyParams):
    """A classifier with weights from a file."""

    kind: Literal["file"] = Field("file", description="an architecture, and its weights in a file")
    classifier: ClassifierParams = Field(ClassifierParams(), description="the network")
    weights: str = Field(
        min_length=1, description="path of a safetensors file, by the network's names or those of the released code"
    )

    def load(self, like: ImageSet) -> nn.Module:
        """The network for such images, in evaluation mode. InputError if the file is not there or of another one."""
        network = self.classifier.build(like, 0)
        load_weights(network, Path(self.weights).expanduser())
        return network.eval()


NetworkParams = Annotated[TrainedNetwork | StoredNetwork | PublishedNetwork | NetworkFile, Field(discriminator="kind")]
"""any of them"""
