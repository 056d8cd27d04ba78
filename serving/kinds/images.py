"""Models that take images, and among them networks that give logits: the bases of their kinds."""

from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property

import torch
from pydantic import BaseModel, Field
from torch import Tensor, nn

from jobs.common.attacks import checks
from service.errors import InputError, ModelError, first_line
from service.models import ModelCard, TensorSpec
from serving.http.settings import ServeSettings
from serving.http.tensors import Array
from serving.kinds.base import Endpoint

IMAGES = "images"


class ClassesOfCard(BaseModel):
    """The settings of a card that names its classes."""

    classes: tuple[str, ...] = Field(min_length=2)


class ImageEndpoint(Endpoint):
    """A model that takes images (rows, channels, height, width) in [0, 1]. classes: names of what it tells apart."""

    classes: tuple[str, ...]

    def __init__(self, card: ModelCard, network: nn.Module, settings: ServeSettings, device: torch.device) -> None:
        super().__init__(card, network, settings, device)
        self.network.requires_grad_(False)

    @abstractmethod
    def gmacs(self, shape: Sequence[int]) -> float:
        """10^9 multiplications of one pass over images of a shape (rows, channels, height, width)."""

    def _check_work(self, images: Array, gmacs: float) -> None:
        """InputError if a request has too many rows, wrong pixels, or takes too much work."""
        self._check_rows(IMAGES, images)
        check_pixels(images)
        if gmacs > (most := self._limits.gmacs):
            raise InputError(
                f"input {IMAGES!r} must take at most {most:,.0f} billion multiplications (limits.gmacs); "
                f"shape {list(images.shape)} takes {gmacs:,.0f}",
                "send fewer or smaller images",
            )


class ImageNetwork(ImageEndpoint):
    """A network from images to logits (rows, classes, ...).

    The network is tried on one image of zeros when it is loaded.
    """

    def logits(self, images: Tensor) -> Tensor:
        """images: on the model's device. Returns float32 logits. InputError if the network does not take their size."""
        return self._logits_of(self.network, images)

    def _logits_of(self, network: nn.Module, images: Tensor) -> Tensor:
        """Of the network, or of what has been made of it."""
        try:
            with torch.no_grad():
                logits: Tensor = network(images)
        except RuntimeError as error:
            if -1 not in self.inputs[0].shape[1:]:
                raise
            reason = first_line(error)
            raise InputError(f"input {IMAGES!r}: the model does not run on {list(images.shape)}: {reason}") from error
        return logits.float()

    @cached_property
    def randomised(self) -> tuple[str, ...]:
        """A sentence if it answers the same image differently each time. It is tried when it is first asked for."""
        image = torch.rand(self._tried, generator=torch.Generator().manual_seed(0)).to(self.device)
        return tuple(checks.randomised(self.network, image, self.logits(image).argmax(1)))

    def _try_out(self, *sides: int) -> tuple[Tensor, int]:
        """The logits of one image of zeros, and the multiplications of the pass."""
        shape = (self.inputs[0].shape[1], *sides)
        self._tried = (1, *shape)
        with self._trial(f"images {shape}") as counter:
            logits = self.network(torch.zeros(1, *shape, device=self.device))
        if isinstance(logits, Tensor) and logits.dtype not in (torch.float32, torch.float64):
            kind = str(logits.dtype).removeprefix("torch.")
            raise ModelError(f"model {self.card.name!r} must answer with logits in float32; they are in {kind}")
        return logits, counter.total

    def _check_images(self, images: Array) -> None:
        """InputError as in `_check_work`."""
        self._check_work(images, self.gmacs(images.shape))

    def _check_finite(self, logits: Tensor, together: int) -> None:
        """ModelError about logits that are not finite. together: how many works they are of."""
        if bool(logits.isfinite().all()):
            return
        if together > 1:
            raise FloatingPointError("the logits are not finite")  # so each work is computed again, alone
        raise ModelError(f"model {self.card.name!r} answers NaN or infinite logits")


def described(logits: object) -> str:
    """What a network returned, for an error."""
    return str(tuple(logits.shape)) if isinstance(logits, Tensor) else type(logits).__name__


def classes_in(card: ModelCard) -> int:
    """How many classes a card names; -1 if it does not say."""
    names = card.settings.get("classes")
    return len(names) if isinstance(names, list) else -1


def class_scores(card: ModelCard) -> tuple[TensorSpec, ...]:
    """What a network answers that says which class each input is of."""
    classes = classes_in(card)
    return (
        TensorSpec(name="logits", datatype="FP32", shape=(-1, classes)),
        TensorSpec(name="probabilities", datatype="FP32", shape=(-1, classes)),
        TensorSpec(name="prediction", datatype="INT64", shape=(-1,)),
    )


def class_values(rows: int, classes: Sequence[str]) -> int:
    """How many numbers `class_scores` has for some rows."""
    return rows * (2 * len(classes) + 1)


def check_logits(card: ModelCard, logits: object, classes: int) -> None:
    """ModelError unless they are those of one input: (1, classes)."""
    if not isinstance(logits, Tensor) or logits.shape != (1, classes):
        raise ModelError(f"model {card.name!r} returns {described(logits)}, but its card names {classes} classes")


def check_pixels(images: Array) -> None:
    """InputError unless all pixels are in [0, 1]."""
    least, most = float(images.min()), float(images.max())
    if least >= 0 and most <= 1:
        return
    if least < 0:
        hint = "send pixels as they are: the model normalises them itself"
    else:
        hint = "divide by 255" if 1 < most <= 255 else "pixels are not scaled"
    raise InputError(f"input {IMAGES!r}: pixels must be in [0, 1]; they are in [{least:g}, {most:g}]", hint)
