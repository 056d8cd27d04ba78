"""Segmentation networks as endpoints: images of any size in; a class for every pixel, its confidence and its area out.

Images are (rows, 3, height, width) in [0, 1]; those larger than a tile are cut as in jobs.stacked_unets.tiles, and all
are padded to the sizes that the network takes as in jobs.stacked_unets.padding. Outputs:

    labels            UINT8 (rows, height, width)
    confidence        FP32 (rows, height, width): the probability of that class
    areas             FP32 (rows, classes): the share of pixels of each class
    class_confidence  FP32 (rows, classes): the mean confidence of these pixels, 0 if there are none
    logits            FP32 (rows, classes, height, width), if they are requested by name. Of an image that was cut: the
                      logarithm of the blended probabilities, which are logits but for a constant at each pixel

An uploaded image is answered with areas and class_confidence unless others are requested by name. The answer to one
image, uploaded or a tensor, may also be a PNG, where that is accepted or the parameter `view` asks for it:

    labels   the classes as indices, with the palette of the model (default)
    overlay  the colours of the classes over the image
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from math import ceil
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from jobs.common.metrics.segmentation import IGNORE
from jobs.stacked_unets.padding import any_size, multiple_of
from jobs.stacked_unets.prediction import prepared
from jobs.stacked_unets.tiles import Score, Tiling, strips
from service.errors import BusyError, InputError, ModelError
from service.models import ModelCard, TensorSpec
from serving.http.messages import TENSORS, Form
from serving.http.protocol import InferRequest, Scalar, check_parameters
from serving.http.settings import Attacks, ServeSettings
from serving.http.tensors import Array
from serving.http.uploads import PNG_MEDIA, ImageUpload, indexed_png, to_png
from serving.kinds import attack_options, segmentation_attack
from serving.kinds.base import Example, card_settings, choice, split
from serving.kinds.images import IMAGES, ClassesOfCard, ImageNetwork, classes_in, described
from serving.kinds.work import Abandoned, Answer, AttackWork, Rendering, Stopped, Work

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


class CardSettings(ClassesOfCard):
    """The settings of the card of a segmentation network."""

    classes: tuple[str, ...] = Field(min_length=2, max_length=IGNORE)
    palette: tuple[tuple[Byte, Byte, Byte], ...]

    @model_validator(mode="after")
    def _of_one_length(self) -> Self:
        if len(self.palette) != len(self.classes):
            raise ValueError(f"{len(self.palette)} colours for {len(self.classes)} classes")
        return self


class Segmentation(ImageNetwork):
    """A loaded segmentation network."""

    task: ClassVar[str] = "segmentation"
    actions: ClassVar[tuple[str, ...]] = ("infer", "attack")
    attacks: ClassVar[Mapping[str, Any]] = attack_options.described(
        segmentation_attack.ATTACKS_ON_MAPS, {"region": segmentation_attack.REGION}
    )
    panel: ClassVar[str] = "segmentation"

    def __init__(self, card: ModelCard, network: nn.Module, settings: ServeSettings, device: torch.device) -> None:
        super().__init__(card, network, settings, device)
        parsed = card_settings(card, CardSettings)
        self.classes, self.palette = parsed.classes, np.array(parsed.palette, np.uint8)
        if [(spec.name, spec.datatype, spec.shape) for spec in card.inputs] != [
            (IMAGES, "FP32", (-1, CHANNELS, -1, -1))
        ]:
            raise ModelError(f"model {card.name!r}: it must have one input {IMAGES!r}, FP32 (-1, {CHANNELS}, -1, -1)")
        self.upload = ImageUpload(
            IMAGES, channels=CHANNELS, height=-1, width=-1, resize=None, most_pixels=settings.limits.pixels
        )
        self.network = any_size(self.network, len(self.classes))
        logits, macs = self._try_out(TRIAL, TRIAL)
        if not isinstance(logits, Tensor) or logits.shape != (1, len(self.classes), TRIAL, TRIAL):
            raise ModelError(
                f"model {card.name!r} returns {described(logits)} for images {(CHANNELS, TRIAL, TRIAL)}, but its card "
                f"names {len(self.classes)} classes for each pixel"
            )
        self._prepared = prepared(self.network)
        self._macs_of_pixel = macs / TRIAL**2

    @staticmethod
    def outputs_of(card: ModelCard) -> tuple[TensorSpec, ...]:
        classes = classes_in(card)
        return (
            TensorSpec(name="labels", datatype="UINT8", shape=(-1, -1, -1)),
            TensorSpec(name="confidence", datatype="FP32", shape=(-1, -1, -1)),
            TensorSpec(name="areas", datatype="FP32", shape=(-1, classes)),
            TensorSpec(name="class_confidence", datatype="FP32", shape=(-1, classes)),
            TensorSpec(name=LOGITS, datatype="FP32", shape=(-1, classes, -1, -1)),
        )

    @staticmethod
    def example_for(card: ModelCard) -> Example | None:
        return Example("outputs=areas", "photo.png", "image/png")

    def gmacs(self, shape: Sequence[int]) -> float:
        """10^9 multiplications of a pass over images of a shape (rows, channels, height, width), with its tiles."""
        rows, _, *sides = shape
        multiple = multiple_of(self.network)
        for side in sides:
            rows *= sum(multiple * ceil((end - start) / multiple) for start, end in TILING.spans(side))
        return rows * self._macs_of_pixel / 1e9

    def prepare(self, inputs: Mapping[str, Array], parameters: Mapping[str, Scalar], form: Form = TENSORS) -> Work:
        check_parameters(parameters, ("view",))
        images = inputs[IMAGES]
        self._check_images(images)
        gmacs = self.gmacs(images.shape)
        view = _view(parameters, form)
        if view is None:
            outputs = frozenset(self._computed(images.shape, form))
            return Work(images, (images.shape[1:], outputs), outputs, gmacs, self._values(images.shape, outputs))
        if len(images) != 1:
            raise InputError(f"a PNG is the answer for one image, not for {len(images)}; ask for application/json")
        outputs = frozenset(("labels",))
        rendering = Rendering(PNG_MEDIA, partial(self._draw, view, images[0]))
        return Work(images, (images.shape[1:], outputs), outputs, gmacs, images[0, 0].size, rendering=rendering)

    def _computed(self, shape: Sequence[int], form: Form) -> Sequence[str]:
        """The outputs that are computed. InputError if they are too many numbers."""
        default = PER_IMAGE if form.uploaded else (*PER_PIXEL, *PER_IMAGE)
        outputs = default if form.outputs is None else form.outputs
        rows, _, height, width = shape
        if (values := self._values(shape, outputs)) > (most := self._limits.map_values):
            maps = [name for name in outputs if name not in PER_IMAGE]
            raise InputError(
                f"{' and '.join(maps)} must have at most {most:,} "
                f"numbers (limits.map_values); those of {rows} x {height} x {width} pixels are {values:,}",
                "ask for areas and class_confidence, or for a PNG",
            )
        return outputs

    def _values(self, shape: Sequence[int], outputs: Iterable[str]) -> int:
        """How many numbers the maps among the outputs have."""
        rows, _, height, width = shape
        of_pixel = {**dict.fromkeys(PER_PIXEL, 1), LOGITS: len(self.classes)}
        return rows * height * width * sum(of_pixel.get(name, 0) for name in outputs)

    def compute(self, works: Sequence[Work], stopped: Stopped) -> list[Answer]:
        """Segment the images of all works, which have the same shape and ask the same."""
        deadline = time.monotonic() + self._limits.seconds

        def guarded(images: Tensor) -> Tensor:
            if stopped():
                raise Abandoned
            if time.monotonic() > deadline:
                raise BusyError(f"no answer within {self._limits.seconds:g} s (limits.seconds)", "send smaller images")
            logits = self._logits_of(self._prepared, images)
            self._check_finite(logits, len(works))
            return logits

        requested: frozenset[str] = works[0].options
        images = torch.from_numpy(np.concatenate([work.inputs for work in works]))
        batches = torch.split(images, _at_once(images.shape))
        parts = [self._segment(batch, guarded, LOGITS in requested) for batch in batches]
        outputs = {name: np.concatenate([part[name] for part in parts]) for name in parts[0] if name in requested}
        return split(outputs, works)

    def _segment(self, images: Tensor, network: Score, with_logits: bool) -> dict[str, Array]:
        """All outputs of images that fit into a tile, or of one that does not."""
        labels, confidence, kept = [], [], []
        for logits, probabilities in _scores(network, images.to(self.device)):
            best, place = probabilities.max(dim=1)
            labels.append(place.to("cpu", torch.uint8))
            confidence.append(best.cpu())
            if with_logits:
                kept.append(logits.cpu())
        outputs = {"labels": torch.cat(labels, dim=1), "confidence": torch.cat(confidence, dim=1)}
        outputs |= self._by_class(outputs["labels"], outputs["confidence"])
        if with_logits:
            outputs[LOGITS] = torch.cat(kept, dim=2)
        return {name: tensor.numpy() for name, tensor in outputs.items()}

    def _by_class(self, labels: Tensor, confidence: Tensor) -> dict[str, Tensor]:
        """Areas and mean confidence. labels, confidence: (rows, height, width). Returns (rows, classes) each."""
        count = len(self.classes)
        rows = len(labels)
        bins = (labels.flatten(1).long() + count * torch.arange(rows)[:, None]).flatten()
        pixels = torch.bincount(bins, minlength=rows * count).view(rows, count)
        sums = torch.bincount(bins, confidence.flatten().double(), rows * count).view(rows, count)
        areas = pixels.double() / labels[0].numel()
        return {"areas": areas.float(), "class_confidence": (sums / pixels.clamp(min=1)).float()}

    def _draw(self, view: str, image: Array, answer: Answer) -> bytes:
        """A PNG of an answer about one image (channels, height, width)."""
        labels = answer["labels"][0]
        if view == "labels":
            return indexed_png(labels, self.palette)
        colours = self.palette[labels].transpose(2, 0, 1) / np.float32(255)
        return to_png((1 - OPACITY) * image + OPACITY * colours)

    def prepare_attack(self, request: InferRequest, form: Form, limits: Attacks) -> AttackWork:
        return segmentation_attack.prepare(self, request, form, limits)


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
        return VIEWS[0] if form.png and form.outputs is None else None
    view = choice("view", view, VIEWS)
    if form.outputs is not None:
        raise InputError("outputs and view exclude each other: a view is a PNG")
    return view
