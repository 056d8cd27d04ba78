"""Detectors of objects as endpoints: images of any size in; boxes around what is seen, by class and score, out.

Images are (rows, 3, height, width) in [0, 1]; those larger than a tile are cut as in jobs.common.detection.tiling.
Parameters:

    confidence  the least score of a box, above 0 and below 1; default: what the card says, else 0.3
    overlap     intersection over union above which the less sure of two boxes of a class is dropped; default 0.45
    most        boxes of an image, the surest; default 100, at most 300
    tile        side of a tile in pixels; default: what the card says, else three sides of the frame into which the
                detector scales an image, else 1280. At 65536 no image is cut

Outputs, each with `most` rows for an image, the surest first, and behind them rows that stand for none:

    boxes    FP32 (rows, most, 4): left, top, right, bottom in pixels of the image, from its upper left corner; 0: none
    labels   INT64 (rows, most): the place of the class among the names in the model's settings; -1: none
    scores   FP32 (rows, most) in [0, 1]; 0: none
    count    INT64 (rows,): boxes of the image

The pixels are those of the image as it is to be seen: an uploaded one is turned as its EXIF data say. The answer to one
image may also be a file, which the parameter `view` asks for:

    objects  JSON: a list of the boxes, with the names of their classes
    overlay  the boxes drawn over the image as a PNG; where a PNG is accepted, it is the default
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import BaseModel, Field
from torch import Tensor, nn

from jobs.common.detection.base import Detector
from jobs.common.detection.boxes import Boxes
from jobs.common.detection.tiling import tiled
from service.errors import BusyError, InputError, ModelError, first_line
from service.models import ModelCard, TensorSpec
from service.planning.validation import validate
from serving.http.messages import TENSORS, Form
from serving.http.protocol import InferRequest, Scalar, check_parameters
from serving.http.settings import Attacks, ServeSettings
from serving.http.tensors import Array
from serving.http.uploads import PNG_MEDIA, ImageUpload
from serving.kinds import object_detection_attack
from serving.kinds.base import Example, card_settings, choice, split
from serving.kinds.detection.answers import as_json, as_tensors, drawn
from serving.kinds.detection.attack_options import DESCRIBED
from serving.kinds.detection.options import LARGEST_TILE, SMALLEST_TILE, DetectionOptions
from serving.kinds.images import IMAGES, ImageEndpoint
from serving.kinds.work import Answer, AttackWork, Rendering, Stopped, Work, check_of

CHANNELS = 3
TRIALS = (128, 256)  # sides of the images on which a model is tried
PIXELS_AT_ONCE = 4 * 640**2  # of the images that are seen together
ROWS_AT_ONCE = 8
CONFIDENCE = 0.3
TILE, FRAMES_OF_TILE = 1280, 3  # pixels where the detector scales to no frame; else so many of its sides
VIEWS = ("objects", "overlay")
JSON_MEDIA = "application/json"


class CardSettings(BaseModel):
    """The settings of the card of a detector. confidence, tile: the defaults of these parameters."""

    classes: tuple[str, ...] = Field(min_length=1, max_length=100_000)
    confidence: float = Field(CONFIDENCE, gt=0, lt=1)
    tile: int | None = Field(None, ge=SMALLEST_TILE, le=LARGEST_TILE)


class ObjectDetection(ImageEndpoint):
    """A loaded detector."""

    task: ClassVar[str] = "object_detection"
    actions: ClassVar[tuple[str, ...]] = ("infer", "attack")
    attacks: ClassVar[Mapping[str, Any]] = DESCRIBED
    panel: ClassVar[str] = "objects"

    def __init__(self, card: ModelCard, network: nn.Module, settings: ServeSettings, device: torch.device) -> None:
        super().__init__(card, network, settings, device)
        parsed = card_settings(card, CardSettings)
        if not isinstance(network, Detector):
            raise ModelError(f"model {card.name!r}: it must be a Detector; it is {type(network).__name__}")
        if parsed.classes != tuple(network.classes):
            raise ModelError(
                f"model {card.name!r}: its card names {len(parsed.classes)} classes, the detector "
                f"{len(network.classes)}, and they must be the same"
            )
        if [(spec.name, spec.datatype, spec.shape) for spec in card.inputs] != [
            (IMAGES, "FP32", (-1, CHANNELS, -1, -1))
        ]:
            raise ModelError(f"model {card.name!r}: it must have one input {IMAGES!r}, FP32 (-1, {CHANNELS}, -1, -1)")
        self.detector: Detector = network
        usual = FRAMES_OF_TILE * network.side if network.side else TILE
        tile = parsed.tile or min(max(usual, SMALLEST_TILE), LARGEST_TILE)
        self.classes, self.usual = parsed.classes, {"confidence": parsed.confidence, "tile": tile}
        self.upload = ImageUpload(
            IMAGES, channels=CHANNELS, height=-1, width=-1, resize=None, most_pixels=settings.limits.pixels
        )
        self._macs, self._macs_of_pixel = self._measured()

    @staticmethod
    def outputs_of(card: ModelCard) -> tuple[TensorSpec, ...]:
        return (
            TensorSpec(name="boxes", datatype="FP32", shape=(-1, -1, 4)),
            TensorSpec(name="labels", datatype="INT64", shape=(-1, -1)),
            TensorSpec(name="scores", datatype="FP32", shape=(-1, -1)),
            TensorSpec(name="count", datatype="INT64", shape=(-1,)),
        )

    @staticmethod
    def example_for(card: ModelCard) -> Example | None:
        return Example("view=objects", "photo.jpg", "image/jpeg")

    def gmacs(self, shape: Sequence[int]) -> float:
        rows, _, height, width = shape
        return rows * (self._macs + self._macs_of_pixel * height * width) / 1e9

    def gmacs_of_part(self, shape: Sequence[int], options: DetectionOptions) -> float:
        """Of one part of each image: of the image as it is, if it is no larger than a tile."""
        rows, channels, height, width = shape
        return self.gmacs((rows, channels, min(height, options.tile), min(width, options.tile)))

    def see(self, images: Tensor, options: DetectionOptions, check: Callable[[], None]) -> list[Boxes]:
        """The boxes of images (rows, 3, height, width), on the CPU. check: called before each pass.

        InputError if the detector does not take images of their size.
        """

        def guarded(parts: Tensor) -> list[Boxes]:
            check()
            return self._detect(parts.to(self.device), options)

        height, width = images.shape[2:]
        if not options.tiles.fits(height, width):
            return [tiled(guarded, image, options.tiles, options.overlap, options.most) for image in images]
        at_once = min(ROWS_AT_ONCE, max(1, PIXELS_AT_ONCE // (height * width)))
        return [boxes for batch in torch.split(images, at_once) for boxes in guarded(batch)]

    def _detect(self, images: Tensor, options: DetectionOptions) -> list[Boxes]:
        try:
            found = self.detector.detect(images, options.confidence, options.overlap, options.most)
        except RuntimeError as error:
            reason = first_line(error)
            raise InputError(f"input {IMAGES!r}: the model does not run on {list(images.shape)}: {reason}") from error
        return [self._checked(boxes) for boxes in found]

    def prepare(self, inputs: Mapping[str, Array], parameters: Mapping[str, Scalar], form: Form = TENSORS) -> Work:
        check_parameters(parameters, ("view", *DetectionOptions.model_fields))
        given = {name: value for name, value in parameters.items() if name != "view"}
        options = validate(DetectionOptions, {**self.usual, **given}, "parameters")
        images = inputs[IMAGES]
        height, width = images.shape[2:]
        gmacs = options.parts(height, width) * self.gmacs_of_part(images.shape, options)
        self._check_work(images, gmacs)
        key = (images.shape[1:], options)
        values = 6 * len(images) * options.most
        view = _view(parameters, form)
        if view is None:
            return Work(images, key, options, gmacs, values)
        if len(images) != 1:
            raise InputError(f"the view {view!r} is of one image, not of {len(images)}; ask for tensors")
        if view == "objects":
            rendering = Rendering(JSON_MEDIA, partial(as_json, self.classes, (height, width)))
        else:
            rendering = Rendering(PNG_MEDIA, partial(drawn, self.classes, images[0]))
        return Work(images, key, options, gmacs, values, rendering=rendering)

    def compute(self, works: Sequence[Work], stopped: Stopped) -> list[Answer]:
        """Detect in the images of all works, which have the same shape and ask the same."""
        seconds = self._limits.seconds
        late = BusyError(f"no answer within {seconds:g} s (limits.seconds)", "send smaller images")
        options: DetectionOptions = works[0].options
        images = torch.from_numpy(np.concatenate([work.inputs for work in works]))
        try:
            found = self.see(images, options, check_of(stopped, seconds, late))
        except ModelError as error:
            if len(works) > 1:
                raise FloatingPointError(str(error)) from error  # so each work is computed again, alone
            raise
        return split(as_tensors(found, options.most), works)

    def prepare_attack(self, request: InferRequest, form: Form, limits: Attacks) -> AttackWork:
        return object_detection_attack.prepare(self, request, form, limits)

    def _checked(self, boxes: Boxes) -> Boxes:
        """Boxes of one image on the CPU. ModelError if they are not what a detector has to answer with."""
        corners, labels, scores = boxes.corners.cpu().float(), boxes.labels.cpu().long(), boxes.scores
        named = f"model {self.card.name!r}"
        if scores is None or corners.shape != (len(labels), 4) or scores.shape != labels.shape:
            raise ModelError(f"{named} answers boxes {tuple(corners.shape)} with {len(labels)} labels")
        scores = scores.cpu().float()
        if not bool(corners.isfinite().all() and scores.isfinite().all()):
            raise ModelError(f"{named} answers NaN or infinite boxes or scores")
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(self.classes):
            raise ModelError(f"{named} answers labels that are none of its {len(self.classes)} classes")
        return Boxes(corners, labels, scores)

    def _measured(self) -> tuple[float, float]:
        """Multiplications of a pass over an image: those that every one takes, and those for each pixel.

        Most detectors bring an image to one size, and only the first number is not zero.
        """
        counts = []
        for side in TRIALS:
            with self._trial(f"images {(CHANNELS, side, side)}") as counter:
                found = self.detector.detect(torch.zeros(1, CHANNELS, side, side, device=self.device))
                if len(found) != 1:
                    raise ModelError(f"it answers for {len(found)} images where there is one")
                self._checked(found[0])
            counts.append(counter.total)
        small, large = (side**2 for side in TRIALS)
        of_pixel = max(0.0, (counts[1] - counts[0]) / (large - small))
        return max(0.0, counts[0] - of_pixel * small), of_pixel


def _view(parameters: Mapping[str, Scalar], form: Form) -> str | None:
    view = parameters.get("view")
    if view is None:
        return "overlay" if form.png and form.outputs is None else None
    view = choice("view", view, VIEWS)
    if form.outputs is not None:
        raise InputError("outputs and view exclude each other: a view is a file")
    return view
