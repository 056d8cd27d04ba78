"""Where a network of a landscape comes from: the section `network` of a spec, and the ends of a line between models."""

from typing import Annotated, Literal

from pydantic import Field

from jobs.common.models.classifier_params import ClassifierParams
from jobs.common.models.network_params import PublishedNetwork, StoredNetwork, TrainedNetwork
from jobs.common.params import StudyParams

CENTRE = ""
"""the role of the network at the centre of the landscape"""


class NetworkFile(StudyParams):
    """A classifier with weights from a file."""

    kind: Literal["file"] = Field("file", description="an architecture, and its weights in a file")
    classifier: ClassifierParams = Field(ClassifierParams(), description="the network")
    weights: str = Field(
        min_length=1, description="path of a safetensors file, by the network's names or those of the released code"
    )


NetworkParams = Annotated[TrainedNetwork | StoredNetwork | PublishedNetwork | NetworkFile, Field(discriminator="kind")]
