"""Attacks on segmentation: as many pixels as possible are to be taken for another class, or for one that is named.

Inputs: "images"; optional "labels" UINT8 (rows, height, width), by default the predictions of the model, and "targets"
UINT8, the same shape, the class that each pixel is to be taken for. 255 in one of them: the pixel does not count.
Parameters, besides epsilon, norm, attack (pgd or fgsm), its own and seed of `serving.kinds.image_attack`:

    target  the class that all pixels that count are to be taken for, in place of "targets"
    region  "left,top,right,bottom" in pixels, right and bottom excluded: no other pixels count

The loss is the mean over the pixels that count. Outputs, beside the adversarials: the labels before and after (255:
the logits are not finite); the mean
IoU with "labels" before, after, and when the adversarials are rounded to 8 bits, over the pixels that count; the share
of these that are at the goal of the attack, and whether all are (successful).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from jobs.common.attacks import ATTACKS
from jobs.common.attacks.goals import NO_CLASS, PixelGoal, goal, predicted
from jobs.common.metrics.segmentation import IGNORE, confusion, scores
from jobs.stacked_unets.tiles import Tiling
from service.errors import FieldError, InputError
from service.models import TensorSpec
from serving.http.messages import Form
from serving.http.protocol import InferRequest, Scalar
from serving.http.settings import Attacks
from serving.http.tensors import Array
from serving.kinds.base import whole_number
from serving.kinds.image_attack import (
    LABELS,
    TARGETS,
    ImageAttack,
    Perturbation,
    check_tensors,
    not_a_class,
    picture,
)
from serving.kinds.images import IMAGES, ImageNetwork
from serving.kinds.work import Answer

MAPS = tuple(TensorSpec(name=name, datatype="UINT8", shape=(-1, -1, -1)) for name in (LABELS, TARGETS))
LONGEST = Tiling().side  # an image that is cut into tiles is not attacked: its whole graph would be held at once
UNCOUNTED = -1  # a pixel that does not count, for an attack; for a client it is IGNORE
OPTIONS = ("target", "region")  # the parameters that other attacks on images do not have
REGION: dict[str, Any] = {
    "type": "string",
    "pattern": r"^\d{1,9},\d{1,9},\d{1,9},\d{1,9}$",
    "description": "left,top,right,bottom in pixels, right and bottom excluded: no other pixels count; none: all do",
}
ATTACKS_ON_MAPS = tuple(kind for kind, attack in ATTACKS.items() if attack.takes_maps)


@dataclass(frozen=True)
class Region:
    """A part of an image, in pixels; right and bottom are excluded."""

    left: int
    top: int
    right: int
    bottom: int

    @classmethod
    def parse(cls, text: Scalar, height: int, width: int) -> "Region":
        """A region inside of an image of that size. InputError if it is not one."""
        numbers = str(text).split(",")
        if len(numbers) == 4 and all(number.isascii() and number.isdigit() and len(number) < 10 for number in numbers):
            region = cls(*map(int, numbers))
            if region.left < region.right <= width and region.top < region.bottom <= height:
                return region
        raise FieldError("parameter 'region'", f"be left,top,right,bottom inside of {width}x{height} pixels", text)

    def __str__(self) -> str:
        return f"{self.left},{self.top},{self.right},{self.bottom}"


@dataclass(frozen=True, eq=False)
class SegmentationAttack(ImageAttack):
    """An attack on a segmentation network.

    labels, targets: int64 (rows, height, width), UNCOUNTED where a pixel does not count. region: the
    pixels that count; None: all. target: the class of all targets, if one was named.
    """

    outputs: ClassVar[tuple[str, ...]] = (
        "adversarials",
        "labels",
        "adversarial_labels",
        "mean_iou",
        "adversarial_mean_iou",
        "rounded_mean_iou",
        "share",
        "successful",
        "distance",
        "queries",
        "gradients",
    )

    region: Region | None = None
    target: int | None = None

    @property
    def parameters(self) -> Mapping[str, Scalar]:
        parameters = dict(super().parameters)
        if self.target is not None:
            parameters["target"] = self.target
        if self.region is not None:
            parameters["region"] = str(self.region)
        return parameters

    def check(self) -> None:
        """Also InputError about the first image in which no pixel counts."""
        counted = self.truth(torch.zeros(self.rows, 1, *self.images.shape[2:])) >= 0
        if self.targets is not None:
            counted &= self.targets >= 0
        if empty := (~counted.flatten(1).any(1)).nonzero().flatten().tolist():
            raise InputError(f"no pixel of image {empty[0]} counts: {LABELS}, {TARGETS}, region leave none")
        super().check()

    def truth(self, before: Tensor) -> Tensor:
        labels = super().truth(before)
        if self.region is None:
            return labels
        inside = torch.zeros_like(labels, dtype=torch.bool)
        inside[:, self.region.top : self.region.bottom, self.region.left : self.region.right] = True
        return labels.where(inside, UNCOUNTED)

    def predictions(
        self, before: Tensor, labels: Tensor, targets: Tensor | None, after: Tensor, rounded: Tensor
    ) -> Answer:
        pixel_goal = goal(labels, targets)
        assert isinstance(pixel_goal, PixelGoal)  # labels are maps
        classes = before.shape[1]
        truth = labels.where(pixel_goal.counted, IGNORE).cpu()
        maps = [predicted(logits).cpu() for logits in (before, after, rounded)]
        ious = [_mean_iou(truth, predicted, classes) for predicted in maps]
        return {
            "labels": maps[0].to(torch.uint8).numpy(),
            "adversarial_labels": maps[1].where(maps[1] != NO_CLASS, IGNORE).to(torch.uint8).numpy(),
            "mean_iou": ious[0],
            "adversarial_mean_iou": ious[1],
            "rounded_mean_iou": ious[2],
            "share": pixel_goal.share(after).cpu().numpy(),
        }


def prepare(model: ImageNetwork, request: InferRequest, form: Form, limits: Attacks) -> SegmentationAttack:
    """Check everything that can be known before the model is called. InputError, one sentence."""
    parameters = dict(request.parameters)
    options = {name: parameters.pop(name) for name in OPTIONS if name in parameters}
    inputs = check_tensors(model, request.inputs, MAPS)
    images, classes = inputs[IMAGES], len(model.classes)
    rows, _, height, width = images.shape
    _check_size(rows, height, width, limits)
    for name in (LABELS, TARGETS):
        if name in inputs:
            _check_map(name, inputs[name], (rows, height, width), classes)
    perturbation = Perturbation.parse(parameters)
    if not perturbation.attack.takes_maps:
        raise InputError(
            f"parameter 'attack' must be one of {', '.join(ATTACKS_ON_MAPS)} for this model; "
            f"it is {perturbation.attack.kind!r}, which takes one label for each image"
        )
    maps = {name: torch.tensor(inputs[name]).long() for name in (LABELS, TARGETS) if name in inputs}  # copies
    maps = {name: labels.where(labels != IGNORE, UNCOUNTED) for name, labels in maps.items()}
    target = None
    if "target" in options:
        if TARGETS in maps:
            raise InputError("parameter 'target' and input 'targets' exclude each other")
        target = whole_number("target", options["target"], 0, classes - 1)
        maps[TARGETS] = torch.full((rows, height, width), target)
    work = SegmentationAttack(
        model,
        limits,
        perturbation,
        torch.tensor(images),
        maps.get(LABELS),
        maps.get(TARGETS),
        rendering=picture(form, images),
        region=Region.parse(options["region"], height, width) if "region" in options else None,
        target=target,
    )
    work.check()
    return work


def _check_size(rows: int, height: int, width: int, limits: Attacks) -> None:
    if max(height, width) > LONGEST:
        raise InputError(f"images must have at most {LONGEST} pixels a side to be attacked; they are {width}x{height}")
    if (pixels := rows * height * width) > limits.pixels:
        raise InputError(
            f"input {IMAGES!r} must have at most {limits.pixels:,} pixels (attacks.pixels); it has {pixels:,}",
            "send fewer or smaller images",
        )


def _check_map(name: str, labels: Array, shape: tuple[int, ...], classes: int) -> None:
    if labels.shape != shape:
        raise InputError(f"input {name!r}: shape must be {list(shape)}, that of the pixels; it is {list(labels.shape)}")
    worst = int(labels.max(where=labels != IGNORE, initial=0))
    if worst >= classes:
        raise InputError(f"input {name!r} {not_a_class(worst, classes)}", f"{IGNORE} where a pixel does not count")


def _mean_iou(truth: Tensor, maps: Tensor, classes: int) -> Array:
    """Of each image. A pixel without a class is taken for one more, which is none of the truth."""
    pairs = zip(truth, maps.where(maps != NO_CLASS, classes), strict=True)
    return np.array([scores(confusion(*pair, classes + 1)).mean_iou for pair in pairs], np.float32)
