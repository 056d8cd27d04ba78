"""Trained networks in the model store: their names, checked before anything is trained, and their cards."""

import re
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Self

from pydantic import Field, model_validator

from jobs.common.data.images.base import ImageSet, resize_of
from jobs.common.models.classifier_params import ClassifierParams
from jobs.common.params import StudyParams
from service.errors import FieldError
from service.models import CardDraft, TensorSpec, check_name


class PublishingParams(StudyParams):
    """Base of the parameters of a study that saves a network."""

    publish_as: str = Field(
        "", description="name of the network in the model store; default: made of the names of data and network"
    )

    @property
    @abstractmethod
    def name_parts(self) -> tuple[str, ...]:
        """What the default name is made of, such as the data set and the architecture; empty if nothing is saved."""

    @property
    def model_name(self) -> str:
        """Under which name the network is saved."""
        parts = (part.rpartition(":")[2] for part in self.name_parts if part)
        return self.publish_as or re.sub(r", | |_", "-", "-".join(parts)).lower()

    @model_validator(mode="after")
    def _can_be_published(self) -> Self:
        if self.name_parts:
            made = None if self.publish_as else "it is made of the names of data and network; give another one"
            check_name(self.model_name, "publish_as", made)
        elif self.publish_as:
            raise FieldError("publish_as", "be left out where no network is trained, as none is saved", self.publish_as)
        return self


def classifier_card(
    study: str,
    network: ClassifierParams,
    images: ImageSet,
    *,
    metrics: dict[str, float],
    description: str,
    settings: Mapping[str, Any],
) -> CardDraft:
    """What serving needs to know of a classifier.

    images: of the kind that it was trained on, which say the input, the classes, and how a file becomes an input.
    description: what is special about it, after the names of data and network. settings: what the study says besides,
    as JSON.
    """
    return CardDraft(
        architecture=network.architecture,
        arguments=network.arguments(images),
        study=study,
        task="classification",
        inputs=(TensorSpec(name="images", datatype="FP32", shape=(-1, *images.shape)),),
        outputs=(TensorSpec(name="logits", datatype="FP32", shape=(-1, len(images.classes))),),
        settings={"classes": list(images.classes), "resize": resize_of(images), **settings},
        metrics=metrics,
        description=f"{images.name} by {network.name.rpartition(':')[2]}{description}",
    )
