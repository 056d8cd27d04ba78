"""The classifier that a study trains, as a section of its parameters."""

from typing import Annotated, Any

from pydantic import Field, JsonValue
from torch import nn

from jobs.common.data.images.base import ImageSet
from jobs.common.imports import name_of
from jobs.common.models.architectures import ArchitectureParams, weights_from
from jobs.common.models.classifiers import ARCHITECTURES, classifier


class ClassifierParams(ArchitectureParams):
    """The network."""

    catalogue = "jobs.common.models.classifiers"

    name: Annotated[str, name_of(ARCHITECTURES, "classifier")] = Field(
        "digits_net",
        description=f"{', '.join(ARCHITECTURES)}, or an import path mypackage.module:build, which is called with "
        "classes, channels and the options",
    )
    options: dict[str, JsonValue] = Field(
        {}, description="keyword arguments of the network, e.g. {depth: 32, width: 10} or {mean: [0.5], std: [0.25]}"
    )

    def arguments(self, images: ImageSet) -> dict[str, Any]:
        """What the architecture is called with."""
        return {"classes": len(images.classes), "channels": images.shape[0], **self.options}

    def build(self, images: ImageSet, seed: int) -> nn.Module:
        """The network with fresh weights, drawn from the seed. InputError if it refuses its arguments."""
        return self.build_for(len(images.classes), images.shape[0], seed)

    def build_for(self, classes: int, channels: int, seed: int) -> nn.Module:
        """The same for images that are not there."""
        with weights_from(seed):
            return classifier(self.name, **{"classes": classes, "channels": channels, **self.options})
