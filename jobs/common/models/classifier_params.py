"""The classifier that a study trains, as a section of its parameters."""

from typing import Any

import torch
from pydantic import Field, JsonValue
from torch import nn

from jobs.common.data.images.base import ImageSet
from jobs.common.models.classifiers import ARCHITECTURES, classifier
from jobs.common.params import StudyParams
from jobs.common.training.optimizers import device_of
from service.errors import InputError


class ClassifierParams(StudyParams):
    """The network."""

    name: str = Field(
        "digits_net",
        description=f"{', '.join(ARCHITECTURES)}, or an import path mypackage.module:build, which is called with "
        "classes, channels and the options",
    )
    options: dict[str, JsonValue] = Field(
        {}, description="keyword arguments of the network, e.g. {depth: 32, width: 10} or {mean: [0.5], std: [0.25]}"
    )

    @property
    def architecture(self) -> str:
        """The import path that a model card names it by."""
        return self.name if ":" in self.name else f"jobs.common.models.classifiers:{self.name}"

    def arguments(self, images: ImageSet) -> dict[str, Any]:
        """What the architecture is called with."""
        return {"classes": len(images.classes), "channels": images.shape[0], **self.options}

    def build(self, images: ImageSet, seed: int) -> nn.Module:
        """The network with fresh weights, drawn from the seed. InputError if it refuses its arguments."""
        return self.build_for(len(images.classes), images.shape[0], seed)

    def build_for(self, classes: int, channels: int, seed: int) -> nn.Module:
        """The same for images that are not there."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return classifier(self.name, **{"classes": classes, "channels": channels, **self.options})


def check_fit(network: nn.Module, images: ImageSet, name: str) -> None:
    """InputError, one sentence, unless the network maps these images to logits of their classes."""
    expected = (1, len(images.classes))
    try:
        with torch.no_grad():
            logits = network.eval()(images.images(torch.arange(1)).to(device_of(network)))
    except (RuntimeError, ValueError, IndexError) as error:
        said = str(error).splitlines()[0]
        raise InputError(f"classifier {name!r} does not fit {images.name} ({_size(images)}): {said}") from error
    if tuple(logits.shape) != expected:
        found = tuple(logits.shape)
        raise InputError(f"classifier {name!r} answers {images.name} with logits of shape {found}, not {expected}")


def _size(images: ImageSet) -> str:
    channels, height, width = images.shape
    return f"{channels} channel{'s' * (channels > 1)} of {height}x{width}"
