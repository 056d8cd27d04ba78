"""Attacks on image classifiers.

Inputs: "images"; optional "labels" INT64 (rows,), by default the predictions of the model, and "targets" INT64 (rows,),
the class that each image is to be taken for. The parameters `label` and `target` stand for them where all images have
the same one. The other parameters are those of `serving.kinds.image_attack`.

Outputs, beside the adversarials: predictions before and after (-1: the logits are not finite), whether the attack
was successful on each image, whether it still is when the pixels are rounded to 8 bits as in a PNG, the norm of the
perturbation, the least norm known to be successful (-1: none), and the passes forward (queries) and backward
(gradients) that it took.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from jobs.common.attacks import Goal
from jobs.common.attacks.goals import predicted
from service.errors import InputError
from service.models import TensorSpec
from serving.http.messages import Form
from serving.http.protocol import InferRequest
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

CLASSES = tuple(TensorSpec(name=name, datatype="INT64", shape=(-1,)) for name in (LABELS, TARGETS))
SHORT = {"label": LABELS, "target": TARGETS}  # parameter -> the input that it stands for


@dataclass(frozen=True, eq=False)
class ClassificationAttack(ImageAttack):
    """An attack on a classifier. labels, targets: int64 (rows,)."""

    outputs: ClassVar[tuple[str, ...]] = (
        "adversarials",
        "prediction",
        "adversarial_prediction",
        "successful",
        "rounded_successful",
        "distance",
        "minimum_distance",
        "queries",
        "gradients",
    )

    def predictions(
        self, before: Tensor, labels: Tensor, targets: Tensor | None, after: Tensor, rounded: Tensor
    ) -> Answer:
        return {
            "prediction": before.argmax(1).cpu().numpy(),
            "adversarial_prediction": predicted(after).cpu().numpy(),
            "rounded_successful": Goal(labels, targets).reached(rounded).cpu().numpy(),
        }


def prepare(model: ImageNetwork, request: InferRequest, form: Form, limits: Attacks) -> ClassificationAttack:
    """Check everything that can be known before the model is called. InputError, one sentence."""
    parameters = dict(request.parameters)
    inputs = check_tensors(model, request.inputs, CLASSES)
    for name, long in SHORT.items():
        if name in parameters:
            if long in inputs:
                raise InputError(f"parameter {name!r} and input {long!r} exclude each other")
            number = whole_number(name, parameters.pop(name), 0, len(model.classes) - 1)
            inputs[long] = np.full(len(inputs[IMAGES]), number)
    for name in (LABELS, TARGETS):
        if name in inputs:
            _check_classes(name, inputs[name], len(inputs[IMAGES]), len(model.classes))
    perturbation = Perturbation.parse(parameters)
    tensors = {name: torch.tensor(array) for name, array in inputs.items()}  # copies: an array may view the body
    rendering = picture(form, inputs[IMAGES])
    labels, targets = tensors.get(LABELS), tensors.get(TARGETS)
    work = ClassificationAttack(model, limits, perturbation, tensors[IMAGES], labels, targets, rendering)
    work.check()
    return work


def _check_classes(name: str, values: Array, images: int, classes: int) -> None:
    if len(values) != images:
        raise InputError(f"input {name!r} must have a class for each of {images} images; it has {len(values)}")
    if wrong := [int(value) for value in values if not 0 <= value < classes]:
        raise InputError(f"input {name!r} {not_a_class(wrong[0], classes)}")
