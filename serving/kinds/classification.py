"""Image classifiers as endpoints: pixels in [0, 1] or an uploaded image in; logits, probabilities and prediction out.

They take no parameters. The names of the classes are in the model's metadata.
"""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import nn

from jobs.common.attacks import ATTACKS
from service.errors import ModelError
from service.models import ModelCard, TensorSpec
from serving.http.messages import TENSORS, Form
from serving.http.protocol import InferRequest, Scalar, check_parameters
from serving.http.settings import Attacks, ServeSettings
from serving.http.tensors import Array
from serving.http.uploads import ImageUpload
from serving.kinds import attack_options, classification_attack
from serving.kinds.base import Example, card_settings, split
from serving.kinds.images import IMAGES, ClassesOfCard, ImageNetwork, check_logits, class_scores, class_values
from serving.kinds.work import Abandoned, Answer, AttackWork, Stopped, Work

TRIAL = 32  # side of the image on which a model is tried that takes any
LONGEST = 4096  # side of an image that a card may ask for


class CardSettings(ClassesOfCard):
    """The settings of the card of a classifier."""

    resize: int | None = Field(None, ge=1, le=LONGEST)


class Classification(ImageNetwork):
    """A loaded classifier."""

    task: ClassVar[str] = "classification"
    actions: ClassVar[tuple[str, ...]] = ("infer", "attack")
    attacks: ClassVar[Mapping[str, Any]] = attack_options.described(ATTACKS, {})
    panel: ClassVar[str] = "classification"

    def __init__(self, card: ModelCard, network: nn.Module, settings: ServeSettings, device: torch.device) -> None:
        super().__init__(card, network, settings, device)
        parsed = card_settings(card, CardSettings)
        self.classes = parsed.classes
        if len(card.inputs) != 1 or not _takes_images(card.inputs[0]):
            raise ModelError(f"model {card.name!r}: a classifier has one input {IMAGES!r}, FP32 (-1, channels, …, …)")
        _, channels, height, width = card.inputs[0].shape
        self.upload = ImageUpload(
            IMAGES, channels, height, width, resize=parsed.resize, most_pixels=settings.limits.pixels
        )
        sides = [TRIAL if side == -1 else side for side in (height, width)]
        logits, macs = self._try_out(*sides)
        check_logits(card, logits, len(self.classes))
        self._macs_of_pixel = macs / prod(sides)

    @staticmethod
    def outputs_of(card: ModelCard) -> tuple[TensorSpec, ...]:
        return class_scores(card)

    @staticmethod
    def example_for(card: ModelCard) -> Example | None:
        return Example("outputs=prediction", "photo.png", "image/png")

    def gmacs(self, shape: Sequence[int]) -> float:
        return shape[0] * prod(shape[2:]) * self._macs_of_pixel / 1e9

    def prepare(self, inputs: Mapping[str, Array], parameters: Mapping[str, Scalar], form: Form = TENSORS) -> Work:
        check_parameters(parameters, ())
        images = inputs[IMAGES]
        self._check_images(images)
        values = class_values(len(images), self.classes)
        return Work(images, images.shape[1:], None, self.gmacs(images.shape), values)

    def compute(self, works: Sequence[Work], stopped: Stopped) -> list[Answer]:
        """Classify the images of all works, which have the same shape."""
        if stopped():
            raise Abandoned
        images = torch.from_numpy(np.concatenate([work.inputs for work in works]))
        logits = self.logits(images.to(self.device)).cpu()
        self._check_finite(logits, len(works))
        outputs = {
            "logits": logits.numpy(),
            "probabilities": logits.softmax(1).numpy(),
            "prediction": logits.argmax(1).numpy(),
        }
        return split(outputs, works)

    def prepare_attack(self, request: InferRequest, form: Form, limits: Attacks) -> AttackWork:
        return classification_attack.prepare(self, request, form, limits)


def _takes_images(spec: TensorSpec) -> bool:
    batch, *rest = spec.shape or (0,)
    if (spec.name, spec.datatype, batch, len(rest)) != (IMAGES, "FP32", -1, 3):
        return False
    return rest[0] >= 1 and all(side == -1 or 1 <= side <= LONGEST for side in rest[1:])
