"""Image classifiers as endpoints: pixels in [0, 1] or an uploaded image in; logits, probabilities and prediction out.

They take no parameters. The names of the classes are in the model's metadata.
"""

from collections.abc import Mapping, Sequence
from math import prod
from typing import ClassVar

import numpy as np
import torch
from pydantic import BaseModel, Field, ValidationError
from torch import Tensor, nn

from service.errors import InputError, ModelError
from service.models import ModelCard, TensorSpec
from serving.http.protocol import Scalar, check_parameters
from serving.http.settings import ServeSettings
from serving.http.tensors import Array
from serving.http.uploads import ImageInput
from serving.kinds.endpoint import TENSORS, Abandoned, Answer, Form, Stopped, Work
from serving.kinds.multiplications import CountMacs

IMAGES = "images"
TRIAL = 32  # side of the image on which a model is tried that takes any
LONGEST = 4096  # side of an image that a card may ask for


class CardSettings(BaseModel):
    """What the card of a classifier says of how to use it."""

    classes: tuple[str, ...] = Field(min_length=2)
    resize: int | None = Field(None, ge=1, le=LONGEST)


class Classification:
    """A loaded classifier. Raises ModelError if the network does not fit its card."""

    actions: ClassVar[tuple[str, ...]] = ("infer", "attack")

    def __init__(self, card: ModelCard, network: nn.Module, settings: ServeSettings) -> None:
        self.card = card
        self.inputs, self.outputs = card.inputs, self.outputs_of(card)
        self._limits, self._max_rows = settings.limits, settings.batching.max_rows
        try:
            parsed = CardSettings.model_validate(card.settings)
        except ValidationError as error:
            reason = f"settings.{error.errors()[0]['loc'][0]}: {error.errors()[0]['msg']}"
            raise ModelError(f"model {card.name!r}: its card does not say how it is used: {reason}") from error
        self.classes = parsed.classes
        if len(card.inputs) != 1 or not _takes_images(card.inputs[0]):
            raise ModelError(f"model {card.name!r}: a classifier has one input {IMAGES!r}, FP32 (-1, channels, …, …)")
        _, channels, height, width = card.inputs[0].shape
        self.image: ImageInput | None = ImageInput(channels, height, width, parsed.resize, settings.limits.pixels)
        self.device = torch.device("cuda" if settings.replicas.gpus and torch.cuda.is_available() else "cpu")
        self.network = network.to(self.device).requires_grad_(False)
        self._macs_of_pixel = self._count_macs()

    @staticmethod
    def outputs_of(card: ModelCard) -> tuple[TensorSpec, ...]:
        names = card.settings.get("classes")
        classes = len(names) if isinstance(names, list) else -1
        return (
            TensorSpec(name="logits", datatype="FP32", shape=(-1, classes)),
            TensorSpec(name="probabilities", datatype="FP32", shape=(-1, classes)),
            TensorSpec(name="prediction", datatype="INT64", shape=(-1,)),
        )

    def _count_macs(self) -> float:
        """Multiplications of a pass per pixel; the network is tried on the way."""
        channels, *sides = self.inputs[0].shape[1:]
        sides_tried = [TRIAL if side == -1 else side for side in sides]
        shape = channels, *sides_tried
        try:
            with torch.no_grad(), CountMacs() as counter:
                logits = self.network(torch.zeros(1, *shape, device=self.device))
        except (AttributeError, TypeError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise ModelError(f"model {self.card.name!r} does not run on images {shape}: {reason}") from error
        if not isinstance(logits, Tensor) or logits.shape != (1, len(self.classes)):
            found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ModelError(
                f"model {self.card.name!r} returns {found}, but its card names {len(self.classes)} classes"
            )
        pixels: int = prod(sides_tried)
        macs: int = counter.total
        return macs / pixels

    def gmacs(self, shape: Sequence[int]) -> float:
        """10^9 multiplications of one pass over images of a shape (rows, channels, height, width)."""
        return shape[0] * prod(shape[2:]) * self._macs_of_pixel / 1e9

    # ---- before the batch -------------------------------------------------------------------------------------------

    def prepare(self, inputs: Mapping[str, Array], parameters: Mapping[str, Scalar], form: Form = TENSORS) -> Work:
        """Check all that can be wrong with a request. Images: (rows, channels, height, width), as the card says."""
        check_parameters(parameters, ())
        images = inputs[IMAGES]
        if len(images) > self._max_rows:
            raise InputError(f"input {IMAGES!r}: {len(images)} rows; at most {self._max_rows} are taken at once")
        check_pixels(images)
        if (work := self.gmacs(images.shape)) > self._limits.gmacs:
            raise InputError(
                f"input {IMAGES!r}: shape {list(images.shape)} takes {work:,.0f} billion multiplications; "
                f"{self._limits.gmacs:,.0f} are allowed (limits.gmacs)",
                "send fewer or smaller images",
            )
        return Work(images, images.shape[1:], None)

    # ---- in a thread ------------------------------------------------------------------------------------------------

    def compute(self, works: Sequence[Work], stopped: Stopped) -> list[Answer]:
        """Classify the images of all works, which have the same shape."""
        if stopped():
            raise Abandoned
        images = torch.from_numpy(np.concatenate([work.inputs for work in works]))
        logits = self.logits(images.to(self.device)).cpu()
        if not bool(logits.isfinite().all()):
            if len(works) > 1:
                raise FloatingPointError("the logits are not finite")  # each work is tried alone
            raise ModelError(f"model {self.card.name!r} answers NaN or infinite logits")
        answer = {
            "logits": logits.numpy(),
            "probabilities": logits.softmax(1).numpy(),
            "prediction": logits.argmax(1).numpy(),
        }
        ends = np.cumsum([work.rows for work in works]).tolist()
        return [
            {name: array[end - work.rows : end] for name, array in answer.items()}
            for work, end in zip(works, ends, strict=True)
        ]

    def logits(self, images: Tensor) -> Tensor:
        """images: (rows, channels, height, width) on the model's device. Returns (rows, classes)."""
        try:
            with torch.no_grad():
                logits: Tensor = self.network(images)
        except RuntimeError as error:
            if -1 not in self.inputs[0].shape[1:]:
                raise
            reason = str(error).splitlines()[0]
            raise InputError(f"input {IMAGES!r}: the model does not run on {list(images.shape)}: {reason}") from error
        return logits.float()


def check_pixels(images: Array) -> None:
    """InputError unless all pixels are in [0, 1]."""
    least, most = float(images.min()), float(images.max())
    if least >= 0 and most <= 1:
        return
    if least < 0:
        hint = "send pixels as they are: the model normalises them itself"
    else:
        hint = "divide by 255" if 1 < most <= 255 else "pixels are not scaled"
    raise InputError(f"input {IMAGES!r}: pixels are in [{least:g}, {most:g}], but must be in [0, 1]", hint)


def _takes_images(spec: TensorSpec) -> bool:
    batch, *rest = spec.shape or (0,)
    if (spec.name, spec.datatype, batch, len(rest)) != (IMAGES, "FP32", -1, 3):
        return False
    return rest[0] >= 1 and all(side == -1 or 1 <= side <= LONGEST for side in rest[1:])
