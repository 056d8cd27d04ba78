"""Segmentation networks as endpoints: images of any size in; a class for every pixel, its confidence and its area out.

Images are (rows, 3, height, width) in [0, 1]; those larger than a tile are cut as in jobs.stacked_unets.tiles. Outputs:

    labels            UINT8 (rows, height, width)
    confidence        FP32 (rows, height, width): the probability of that class
    areas             FP32 (rows, classes): the share of pixels of each class
    class_confidence  FP32 (rows, classes): the mean confidence of these pixels, 0 if there are none
    logits            FP32 (rows, classes, height, width), if they are asked for by name. Of an image that was cut: the
                      logarithm of the blended probabilities, which are logits but for a constant at each pixel

An uploaded image is answered with areas and class_confidence unless others are asked for by name. It, or one image as a
tensor, may also be answered with a PNG, where that is accepted or the parameter `view` asks for it:

    labels   the classes as indices, with the palette of the model (default)
    overlay  the colours of the classes over the image
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Annotated, ClassVar, Self

import numpy as np
import torch
from pydantic import BaseModel, Field, ValidationError, model_validator
from torch import Tensor, nn

from jobs.common.metrics.segmentation import IGNORE
from jobs.stacked_unets.tiles import Score, Tiling, strips
from service.errors import BusyError, InputError, ModelError, nearest
from service.models import ModelCard, TensorSpec
from serving.http.protocol import Scalar, check_parameters
from serving.http.settings import ServeSettings
from serving.http.tensors import Array
from serving.http.uploads import ImageInput, indexed_png, to_png
from serving.kinds.classification import IMAGES, check_pixels
from serving.kinds.endpoint import TENSORS, Abandoned, Answer, Form, Stopped, Work
from serving.kinds.multiplications import CountMacs

CHANNELS = 3
TILING = Tiling()
TRIAL = 128  # side of the image on which a model is tried
TINY = torch.finfo(torch.float32).tiny
PER_PIXEL = ("labels", "confidence")
PER_IMAGE = ("areas", "class_confidence")
LOGITS = "logits"
VIEWS = ("labels", "overlay")
OPACITY = 0.5  # of the colours over an image

Byte = Annotated[int, Field(ge=0, le=255)]


class CardSettings(BaseModel):
    """What the card of a segmentation network says of how to use it."""

    classes: tuple[str, ...] = Field(min_length=2, max_length=IGNORE)
    palette: tuple[tuple[Byte, Byte, Byte], ...]

    @model_validator(mode="after")
    def _of_one_length(self) -> Self:
        if len(self.palette) != len(self.classes):
            raise ValueError(f"{len(self.palette)} colours for {len(self.classes)} classes")
        return self


class Segmentation:
    """A loaded network. Raises ModelError if it does not fit its card."""

    actions: ClassVar[tuple[str, ...]] = ("infer", "attack")

    def __init__(self, card: ModelCard, network: nn.Module, settings: ServeSettings) -> None:
        self.card = card
        self.inputs, self.outputs = card.inputs, self.outputs_of(card)
        self._limits, self._max_rows = settings.limits, settings.batching.max_rows
        try:
            parsed = CardSettings.model_validate(card.settings)
        except ValidationError as error:
            where = "".join(f".{part}" for part in error.errors()[0]["loc"])
            reason = f"settings{where}: {error.errors()[0]['msg']}"
            raise ModelError(f"model {card.name!r}: its card does not say how it is used: {reason}") from error
        self.classes, self.palette = parsed.classes, np.array(parsed.palette, np.uint8)
        if [(spec.name, spec.datatype, spec.shape) for spec in card.inputs] != [
            (IMAGES, "FP32", (-1, CHANNELS, -1, -1))
        ]:
            raise ModelError(f"model {card.name!r}: it must have one input {IMAGES!r}, FP32 (-1, {CHANNELS}, -1, -1)")
        self.image: ImageInput | None = ImageInput(CHANNELS, -1, -1, None, settings.limits.pixels)
        self.device = torch.device("cuda" if settings.replicas.gpus and torch.cuda.is_available() else "cpu")
        self.network = network.to(self.device).requires_grad_(False)
        self._macs_of_pixel = self._count_macs()

    @staticmethod
    def outputs_of(card: ModelCard) -> tuple[TensorSpec, ...]:
        names = card.settings.get("classes")
        classes = len(names) if isinstance(names, list) else -1
        return (
            TensorSpec(name="labels", datatype="UINT8", shape=(-1, -1, -1)),
            TensorSpec(name="confidence", datatype="FP32", shape=(-1, -1, -1)),
            TensorSpec(name="areas", datatype="FP32", shape=(-1, classes)),
            TensorSpec(name="class_confidence", datatype="FP32", shape=(-1, classes)),
            TensorSpec(name=LOGITS, datatype="FP32", shape=(-1, classes, -1, -1)),
        )

    def _count_macs(self) -> float:
        """Multiplications of a pass per pixel; the network is tried on the way."""
        shape = CHANNELS, TRIAL, TRIAL
        try:
            with torch.no_grad(), CountMacs() as counter:
                logits = self.network(torch.zeros(1, *shape, device=self.device))
        except (AttributeError, TypeError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise ModelError(f"model {self.card.name!r} does not run on images {shape}: {reason}") from error
        if not isinstance(logits, Tensor) or logits.shape != (1, len(self.classes), TRIAL, TRIAL):
            found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ModelError(
                f"model {self.card.name!r} returns {found} for images {shape}, but its card names "
                f"{len(self.classes)} classes for each pixel"
            )
        macs: int = counter.total
        return macs / TRIAL**2

    def gmacs(self, shape: Sequence[int]) -> float:
        """10^9 multiplications of a pass over images of a shape (rows, channels, height, width), with its tiles."""
        rows, _, *sides = shape
        for side in sides:
            rows *= sum(end - start for start, end in TILING.spans(side))
        return rows * self._macs_of_pixel / 1e9

    # ---- before the batch -------------------------------------------------------------------------------------------

    def prepare(self, inputs: Mapping[str, Array], parameters: Mapping[str, Scalar], form: Form = TENSORS) -> Work:
        """Check all that can be wrong with a request. Images: (rows, channels, height, width), as the card says."""
        check_parameters(parameters, ("view",))
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
        view = _view(parameters, form)
        if view is None:
            asked = frozenset(self._asked(images.shape, form))
            return Work(images, (images.shape[1:], asked), asked)
        if len(images) != 1:
            raise InputError(f"a PNG is the answer for one image, not for {len(images)}; ask for application/json")
        draw = partial(self._draw, view, images[0])
        asked = frozenset(("labels",))
        return Work(images, (images.shape[1:], asked), asked, picture=draw)

    def _asked(self, shape: Sequence[int], form: Form) -> Sequence[str]:
        """Which outputs are wanted. InputError if they are too many numbers."""
        default = PER_IMAGE if form.uploaded else (*PER_PIXEL, *PER_IMAGE)
        asked = default if form.wanted is None else form.wanted
        each = {**dict.fromkeys(PER_PIXEL, 1), LOGITS: len(self.classes)}
        rows, _, height, width = shape
        values = sum(rows * height * width * each.get(name, 0) for name in asked)
        if values > self._limits.map_values:
            raise InputError(
                f"{' and '.join(name for name in asked if name in each)} of {rows} x {height} x {width} pixels are "
                f"{values:,} numbers; {self._limits.map_values:,} are answered (limits.map_values)",
                "ask for areas and class_confidence, or for a PNG",
            )
        return asked

    # ---- in a thread ------------------------------------------------------------------------------------------------

    def compute(self, works: Sequence[Work], stopped: Stopped) -> list[Answer]:
        """Segment the images of all works, which have the same shape and ask the same."""
        deadline = time.monotonic() + self._limits.seconds

        def check() -> None:
            if stopped():
                raise Abandoned
            if time.monotonic() > deadline:
                raise BusyError(f"no answer within {self._limits.seconds:g} s (limits.seconds)", "send smaller images")

        def guarded(images: Tensor) -> Tensor:
            check()
            logits = self.logits(images)
            if not bool(logits.isfinite().all()):
                if len(works) > 1:
                    raise FloatingPointError("the logits are not finite")  # each work is tried alone
                raise ModelError(f"model {self.card.name!r} answers NaN or infinite logits")
            return logits

        asked: frozenset[str] = works[0].ask
        images = torch.from_numpy(np.concatenate([work.inputs for work in works]))
        parts = [self._segment(part, guarded, LOGITS in asked) for part in torch.split(images, _at_once(images.shape))]
        outputs = {name: np.concatenate([part[name] for part in parts]) for name in parts[0] if name in asked}
        ends = np.cumsum([work.rows for work in works]).tolist()
        return [
            {name: array[end - work.rows : end] for name, array in outputs.items()}
            for work, end in zip(works, ends, strict=True)
        ]

    def _segment(self, images: Tensor, network: Score, with_logits: bool) -> dict[str, Array]:
        """All outputs of images that fit into a tile, or of one that does not."""
        labels, confidence, kept = [], [], []
        for logits, probabilities in _scores(network, images.to(self.device)):
            best, place = probabilities.max(dim=1)
            labels.append(place.to("cpu", torch.uint8))
            confidence.append(best.cpu())
            if with_logits:
                kept.append(logits.cpu())
        found = {"labels": torch.cat(labels, dim=1), "confidence": torch.cat(confidence, dim=1)}
        found |= self._by_class(found["labels"], found["confidence"])
        if with_logits:
            found[LOGITS] = torch.cat(kept, dim=2)
        return {name: tensor.numpy() for name, tensor in found.items()}

    def _by_class(self, labels: Tensor, confidence: Tensor) -> dict[str, Tensor]:
        """Areas and mean confidence. labels, confidence: (rows, height, width). Returns (rows, classes) each."""
        count = len(self.classes)
        rows = len(labels)
        bins = (labels.flatten(1).long() + count * torch.arange(rows)[:, None]).flatten()
        pixels = torch.bincount(bins, minlength=rows * count).view(rows, count)
        sums = torch.bincount(bins, confidence.flatten().double(), rows * count).view(rows, count)
        areas = pixels.double() / labels[0].numel()
        return {"areas": areas.float(), "class_confidence": (sums / pixels.clamp(min=1)).float()}

    def logits(self, images: Tensor) -> Tensor:
        """images: (rows, channels, height, width) on the model's device. Returns (rows, classes, height, width)."""
        try:
            with torch.no_grad():
                logits: Tensor = self.network(images).float()
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"input {IMAGES!r}: the model does not run on {list(images.shape)}: {reason}") from error
        return logits

    def _draw(self, view: str, image: Array, answer: Answer) -> bytes:
        """A PNG of an answer about one image (channels, height, width)."""
        labels = answer["labels"][0]
        if view == "labels":
            return indexed_png(labels, self.palette)
        colours = self.palette[labels].transpose(2, 0, 1) / np.float32(255)
        return to_png((1 - OPACITY) * image + OPACITY * colours)


def _fits(height: int, width: int) -> bool:
    """Whether an image is one tile."""
    return max(height, width) <= TILING.side


def _at_once(shape: Sequence[int]) -> int:
    """How many images are computed together: no more than a tile has pixels, so that memory is as for one tile."""
    _, _, height, width = shape
    return max(1, TILING.side**2 // (height * width)) if _fits(height, width) else 1


def _scores(network: Score, images: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Logits and probabilities of images, from top to bottom: (rows, classes, height of a strip, width) each."""
    if _fits(*images.shape[2:]):
        logits = network(images)
        yield logits, logits.softmax(1)
        return
    for strip in strips(lambda tiles: network(tiles).softmax(1), images[0], TILING):
        yield strip.clamp(min=TINY).log()[None], strip[None]


def _view(parameters: Mapping[str, Scalar], form: Form) -> str | None:
    view = parameters.get("view")
    if view is None:
        return VIEWS[0] if form.png and form.wanted is None else None
    if view not in VIEWS:
        raise InputError(f"parameter 'view': unknown view {view!r}", nearest(str(view), VIEWS))
    if form.wanted is not None:
        raise InputError("outputs and view exclude each other: a view is a PNG")
    return str(view)
