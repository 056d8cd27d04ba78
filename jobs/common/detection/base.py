"""What a detector is: priors that an attack can take the gradient of, and the boxes that come of them."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from jobs.common.detection.boxes import Boxes
from jobs.common.detection.suppression import surest
from jobs.common.models.weights import digest
from service.errors import unknown


@dataclass(frozen=True)
class Priors:
    """What a detector says at all its places, before anything is thrown away. Differentiable in the images."""

    corners: Tensor
    """(batch, priors, 4): left, top, right, bottom, in pixels of the images that were given"""
    objectness: Tensor | None
    """(batch, priors): logits, before the sigmoid, of whether anything is there; None: the detector has none"""
    classes: Tensor | None
    """(batch, priors, classes) in [0, 1]: probability of each class, given that something is there; where there is no
    objectness, of the class itself. None: first stages, which know no class"""
    levels: tuple[int, ...] = ()
    """how many of the priors each level of the detector has, in their order; empty: all are of one level"""
    class_logits: Tensor | None = None
    """(batch, priors, classes): what stands for objectness in a detector without it, where that is at hand exactly;
    None: the logits of `classes` do"""

    def logits(self, label: int) -> Tensor:
        """What the attack pushes below -1, (batch, priors): objectness, or without it the logit of one class.

        Wu et al. 2020 attack objectness; for detectors without it the class is the documented substitute.
        """
        if self.objectness is not None:
            return self.objectness
        if self.class_logits is not None:
            return self.class_logits[..., label]
        assert self.classes is not None
        return torch.logit(self.classes[..., label], eps=1e-6)

    def scores(self) -> Tensor:
        """Confidence in each class at each place: (batch, priors, classes) in [0, 1]."""
        assert self.classes is not None
        if self.objectness is None:
            return self.classes
        return torch.sigmoid(self.objectness)[..., None] * self.classes


class Detector(nn.Module, ABC):
    """Images in, boxes out. In evaluation mode it changes nothing of itself; images of any size are resized inside."""

    name: str
    classes: tuple[str, ...]
    """names, by label"""
    substitute: str | None
    """what is attacked in place of objectness, in words; None: the detector has objectness"""
    side: int | None = None
    """of the square that images are scaled into, in pixels: much larger images lose what is small; None: no square"""

    @abstractmethod
    def priors(self, images: Tensor) -> Priors:
        """images: (batch, 3, height, width), red green blue in [0, 1]. Keeps the gradient."""

    def detect(self, images: Tensor, confidence: float = 0.02, overlap: float = 0.45, most: int = 300) -> list[Boxes]:
        """Boxes of each image, the surest first, without gradient.

        confidence: in (0, 1), the least. overlap: in (0, 1], above which the less sure of two boxes of a class is
        dropped. most: boxes of an image, at least 1. Corners are clipped to the image. FieldError. A child whose boxes
        do not come of its priors alone overrides it.
        """
        with torch.no_grad():
            priors = self.priors(images)
            return surest(
                priors.corners, priors.scores(), (images.shape[2], images.shape[3]), confidence, overlap, most
            )

    def first_layers(self) -> nn.Sequential | None:
        """What frames, images in the square of `side` as `letterbox` makes them, go through first and only once; None:
        something else.
        """
        return None

    def forward(self, images: Tensor) -> list[Boxes]:
        """Boxes of each image, as `detect` with its defaults."""
        return self.detect(images)

    def label_of(self, name: str) -> int:
        """The label of a class. UnknownNameError if there is none of this name."""
        if name not in self.classes:
            raise unknown("class", name, self.classes)
        return self.classes.index(name)


def weights_hash(detector: nn.Module) -> str:
    """A digest of all that a detector keeps, with the statistics of batch norm: an attack must leave it as it was."""
    return digest({**dict(detector.named_parameters()), **dict(detector.named_buffers())})


def frozen(detector: Detector) -> Detector:
    """The detector in evaluation mode, without gradients of its weights: an attack must not train it."""
    return detector.eval().requires_grad_(False)
