"""Attacks on segmentation: as many pixels as possible are to be taken for another class, or for one that is wanted.

Beside what `serving.kinds.classification_attack` says. Inputs: "images"; optional "labels" UINT8 (rows, height, width),
by default what the model takes the pixels for, and "targets" UINT8, the same shape, what each is to be taken for. 255
in one of them: the pixel does not count. Parameters, besides epsilon, norm, attack (pgd or fgsm), its own and seed:

    target  the class that all pixels that count are to be taken for, in place of "targets"
    region  "left,top,right,bottom" in pixels, right and bottom excluded: no other pixels count

The loss is the mean over the pixels that count. Outputs, beside the adversarials: the labels before and after; the mean
IoU with "labels" before, after, and when the adversarials are rounded to 8 bits, over the pixels that count; the share
of these that are where the attack wants them, and whether all are (broken).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from jobs.common.attacks import ATTACKS
from jobs.common.attacks.goals import PixelGoal, goal
from jobs.common.metrics.segmentation import IGNORE, confusion, scores
from jobs.stacked_unets.tiles import Tiling
from service.errors import InputError, nearest
from service.models import TensorSpec
from serving.http.protocol import InferRequest, Scalar, check_fits
from serving.http.settings import Attacks
from serving.http.tensors import Array
from serving.kinds import classification_attack
from serving.kinds.classification import IMAGES, check_pixels
from serving.kinds.classification_attack import LABELS, TARGETS, AttackWork
from serving.kinds.endpoint import Answer
from serving.kinds.segmentation import Segmentation

MAPS = (LABELS, TARGETS)
LONGEST = Tiling().side  # an image that is cut into tiles is not attacked: the graph of it all would be held at once


UNCOUNTED = -1  # to an attack; to a client IGNORE
OWN = ("target", "region")  # parameters
KINDS = tuple(kind for kind, found in ATTACKS.items() if found.takes_maps)

Region = tuple[int, int, int, int]  # left, top, right, bottom in pixels, the last two excluded


@dataclass(frozen=True, eq=False)
class SegmentationAttackWork(AttackWork):
    """region: the pixels that count; None: all. target: the class that all targets are, if one was asked for."""

    outputs: ClassVar[tuple[str, ...]] = (
        "adversarials",
        "labels",
        "adversarial_labels",
        "mean_iou",
        "adversarial_mean_iou",
        "rounded_mean_iou",
        "share",
        "broken",
        "distance",
        "queries",
        "gradients",
    )

    region: Region | None = None
    target: int | None = None

    def truth(self, before: Tensor) -> Tensor:
        labels = super().truth(before)
        if self.region is None:
            return labels
        inside = torch.zeros_like(labels, dtype=torch.bool)
        left, top, right, bottom = self.region
        inside[:, top:bottom, left:right] = True
        return labels.where(inside, UNCOUNTED)

    def described(self) -> Mapping[str, Scalar]:
        region = {} if self.region is None else {"region": ",".join(map(str, self.region))}
        target = {} if self.target is None else {"target": self.target}
        return {**super().described(), **target, **region}

    def told(self, before: Tensor, labels: Tensor, targets: Tensor | None, after: Tensor, rounded: Tensor) -> Answer:
        wanted = goal(labels, targets)
        assert isinstance(wanted, PixelGoal)  # of maps it is
        classes = before.shape[1]
        truth = labels.where(wanted.counted, IGNORE).cpu()
        found = [logits.argmax(1).cpu() for logits in (before, after, rounded)]
        iou = [_mean_iou(truth, predicted, classes) for predicted in found]
        return {
            "labels": found[0].to(torch.uint8).numpy(),
            "adversarial_labels": found[1].to(torch.uint8).numpy(),
            "mean_iou": iou[0],
            "adversarial_mean_iou": iou[1],
            "rounded_mean_iou": iou[2],
            "share": wanted.share(after).cpu().numpy(),
        }


def prepare(model: Segmentation, request: InferRequest, limits: Attacks) -> SegmentationAttackWork:
    """Check everything that can be known before the model is asked. InputError, one sentence."""
    parameters = dict(request.parameters)
    own = {name: parameters.pop(name) for name in OWN if name in parameters}
    inputs = request.inputs
    _check_inputs(model, inputs, limits)
    images = inputs[IMAGES]
    found, ball, seed = classification_attack.asked(parameters)
    if not found.takes_maps:
        raise InputError(f"parameter 'attack': {found.kind!r} attacks classifiers alone; {' and '.join(KINDS)} do this")
    maps = {name: torch.tensor(inputs[name]).long() for name in MAPS if name in inputs}  # copies
    maps = {name: classes.where(classes != IGNORE, UNCOUNTED) for name, classes in maps.items()}
    target = None
    if "target" in own:
        if TARGETS in maps:
            raise InputError("parameter 'target' and input 'targets' exclude each other")
        target = classification_attack.whole("target", own["target"], classification_attack.MOST_SEED)
        if target >= len(model.classes):
            raise InputError(f"parameter 'target': {target} is not a class; they are 0 to {len(model.classes) - 1}")
        maps[TARGETS] = torch.full((len(images), *images.shape[2:]), target)
    region = _region(own["region"], *images.shape[2:]) if "region" in own else None
    work = SegmentationAttackWork(
        found, ball, seed, torch.tensor(images), maps.get(LABELS), maps.get(TARGETS), region, target
    )
    _check_counted(work)
    classification_attack.check(model, work, limits)
    return work


def _check_inputs(model: Segmentation, inputs: Mapping[str, Array], limits: Attacks) -> None:
    optional = [TensorSpec(name=name, datatype="UINT8", shape=(-1, -1, -1)) for name in MAPS]
    known = [IMAGES, *MAPS]
    for name in inputs:
        if name not in known:
            raise InputError(f"unknown input {name!r}", nearest(name, known))
    check_fits(inputs, [*model.inputs, *(spec for spec in optional if spec.name in inputs)])
    images = inputs[IMAGES]
    check_pixels(images)
    rows, _, height, width = images.shape
    if max(height, width) > LONGEST:
        raise InputError(f"images of {width}x{height} are not attacked, but those of up to {LONGEST} pixels a side are")
    if rows * height * width > limits.pixels:
        raise InputError(
            f"input {IMAGES!r}: {rows * height * width:,} pixels; at most {limits.pixels:,} are attacked at once "
            "(attacks.pixels)",
            "send fewer or smaller images",
        )
    for name in MAPS:
        classes = inputs.get(name)
        if classes is None:
            continue
        if classes.shape != (rows, height, width):
            raise InputError(
                f"input {name!r}: shape is {list(classes.shape)}, but the images have pixels {[rows, height, width]}"
            )
        worst = int(classes.max(where=classes != IGNORE, initial=0))
        if worst >= len(model.classes):
            raise InputError(
                f"input {name!r}: {worst} is not a class; they are 0 to {len(model.classes) - 1}, and {IGNORE} where a "
                "pixel does not count"
            )


def _region(text: Scalar, height: int, width: int) -> Region:
    numbers = str(text).split(",")
    if len(numbers) == 4 and all(number.isascii() and number.isdigit() and len(number) < 10 for number in numbers):
        left, top, right, bottom = map(int, numbers)
        if left < right <= width and top < bottom <= height:
            return left, top, right, bottom
    raise InputError(
        f"parameter 'region': {str(text)[:60]!r} is not allowed; left,top,right,bottom inside of {width}x{height} is"
    )


def _check_counted(work: SegmentationAttackWork) -> None:
    """InputError about the first image in which no pixel counts."""
    rows, _, height, width = work.images.shape
    inside = work.truth(torch.zeros(rows, 1, height, width)) >= 0
    if work.targets is not None:
        inside &= work.targets >= 0
    if lacking := (~inside.flatten(1).any(1)).nonzero().flatten().tolist():
        raise InputError(f"no pixel of image {lacking[0]} counts: {', '.join((*MAPS, 'region'))} leave none")


def _mean_iou(truth: Tensor, predicted: Tensor, classes: int) -> Array:
    pairs = zip(truth, predicted, strict=True)
    return np.array([scores(confusion(*pair, classes)).mean_iou for pair in pairs], np.float32)
