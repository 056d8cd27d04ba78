"""Detectors of torchvision, with weights that the user has: nothing is fetched.

Two-stage ones answer with the priors of their first stage, which have objectness and know no class. One-stage ones have
no objectness. What is attacked in its place is, by family:

    RetinaNet       the logit of the class
    FCOS            the logit of the class plus that of centreness
    SSD, SSDlite    the logit of the class less the logarithm of the summed exponentials of all others
"""

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from jobs.common.detection.base import Detector, Priors, frozen
from jobs.common.detection.boxes import Boxes
from jobs.common.detection.detectors import coco
from jobs.common.detection.letterbox import check_images
from jobs.common.detection.suppression import surest
from jobs.common.models.weights_file import load_weights
from service.errors import FieldError, unknown

FREE_NUMBERS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
"""of COCO's classes 1 to 90, those that no class has"""
MOST_CLASSES = 1000
PROBABLE = 0.75  # from which on the others of a share are summed without it: 1 less the share would lose its digits


class TorchvisionDetector(Detector):
    """A model of torchvision, whose own resizing and normalisation come first."""

    def __init__(self, name: str, model: nn.Module, classes: Sequence[str], columns: Sequence[int]) -> None:
        """columns: of the model's class scores, by the detector's labels."""
        super().__init__()
        self.name, self.classes = name, tuple(classes)
        self.model: Any = model
        self.columns: Tensor
        self.register_buffer("columns", torch.tensor(columns), persistent=False)

    def features(self, images: Tensor) -> tuple[Any, dict[str, Tensor]]:
        """The resized images as torchvision lists them, and their features of each level. InputError."""
        check_images(images)
        resized, _ = self.model.transform(list(images))
        return resized, self.model.backbone(resized.tensors)


class FasterRcnn(TorchvisionDetector):
    """The region proposal network is what is attacked; boxes come of both stages."""

    substitute = None

    def priors(self, images: Tensor) -> Priors:
        from torchvision.models.detection.rpn import concat_box_prediction_layers

        resized, features = self.features(images)
        levels = list(features.values())
        anchor_generator = self.model.rpn.anchor_generator
        objectness, offsets = concat_box_prediction_layers(*self.model.rpn.head(levels))
        corners = self.model.rpn.box_coder.decode(offsets, anchor_generator(resized, levels))
        batch = len(images)
        corners = _back(corners.view(batch, -1, 4), resized, images)
        return Priors(corners, objectness.view(batch, -1), None, _counts(anchor_generator, levels))

    def detect(self, images: Tensor, confidence: float = 0.02, overlap: float = 0.45, most: int = 300) -> list[Boxes]:
        heads = self.model.roi_heads
        with torch.no_grad():
            resized, features = self.features(images)
            proposals, _ = self.model.rpn(resized, features)
            pooled = heads.box_head(heads.box_roi_pool(features, proposals, resized.image_sizes))
            logits, offsets = heads.box_predictor(pooled)
            corners = heads.box_coder.decode(offsets, proposals)[:, self.columns]  # (proposals, classes, 4)
            scores = functional.softmax(logits, 1)[:, self.columns]
            counts = [len(each) for each in proposals]
            found: list[Boxes] = []
            for boxes, confident in zip(torch.split(corners, counts), torch.split(scores, counts), strict=True):
                found += surest(
                    *(_back(boxes, resized, images)[None], confident[None], (images.shape[2], images.shape[3])),
                    *(confidence, overlap, most),
                )
        return found


class OneStage(TorchvisionDetector):
    """One network for places and classes."""

    def priors(self, images: Tensor) -> Priors:
        resized, features = self.features(images)
        levels = list(features.values())
        anchor_generator = self.model.anchor_generator
        answers = self.model.head(levels)
        anchors = torch.stack(anchor_generator(resized, levels))  # (batch, priors, 4)
        corners = self.corners(answers["bbox_regression"], anchors)
        classes, logits = self.scored(answers)
        return Priors(
            _back(corners, resized, images),
            None,
            classes[..., self.columns],
            _counts(anchor_generator, levels),
            class_logits=logits[..., self.columns],
        )

    def corners(self, offsets: Tensor, anchors: Tensor) -> Tensor:
        """In pixels of the resized images. All (batch, priors, 4)."""
        decoded: Tensor = self.model.box_coder.decode_single(offsets.flatten(0, 1), anchors.flatten(0, 1))
        return decoded.view_as(offsets)

    @abstractmethod
    def scored(self, answers: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """What the detector's scores are, and what is attacked: (batch, priors, columns of the model) each."""


class RetinaNet(OneStage):
    substitute = "the logit of the class"

    def scored(self, answers: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        logits = answers["cls_logits"]
        return torch.sigmoid(logits), logits


class Fcos(OneStage):
    substitute = "the logit of the class plus that of centreness"

    def corners(self, offsets: Tensor, anchors: Tensor) -> Tensor:
        decoded: Tensor = self.model.box_coder.decode(offsets, anchors)
        return decoded

    def scored(self, answers: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        logits, centreness = answers["cls_logits"], answers["bbox_ctrness"]
        scores = torch.exp((functional.logsigmoid(logits) + functional.logsigmoid(centreness)) / 2)
        return scores, logits + centreness


class Ssd(OneStage):
    substitute = "the logit of the class less the logarithm of the summed exponentials of all others"

    def scored(self, answers: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        logits = answers["cls_logits"]
        return functional.softmax(logits, -1), against_others(logits)


def against_others(logits: Tensor) -> Tensor:
    """Each logit less the logarithm of the summed exponentials of all others, over the last axis: the same shape.

    It is the logit of the class's probability, exact also where that is 1 but for rounding.
    """
    whole = logits.logsumexp(-1, keepdim=True)
    share = (logits - whole).exp()
    others = whole + torch.log1p(-share.clamp_max(PROBABLE))
    best = logits.detach().argmax(-1, keepdim=True)
    without_best = logits.scatter(-1, best, -torch.inf).logsumexp(-1, keepdim=True)
    return logits - torch.where(share > PROBABLE, without_best, others)


FAMILIES: dict[str, type[TorchvisionDetector]] = {
    "fasterrcnn_mobilenet_v3_large_320_fpn": FasterRcnn,
    "fasterrcnn_mobilenet_v3_large_fpn": FasterRcnn,
    "fasterrcnn_resnet50_fpn": FasterRcnn,
    "fasterrcnn_resnet50_fpn_v2": FasterRcnn,
    "retinanet_resnet50_fpn": RetinaNet,
    "retinanet_resnet50_fpn_v2": RetinaNet,
    "fcos_resnet50_fpn": Fcos,
    "ssd300_vgg16": Ssd,
    "ssdlite320_mobilenet_v3_large": Ssd,
}
EXACT = ("fasterrcnn_resnet50_fpn", "retinanet_resnet50_fpn")
"""models whose published weights were trained with batch norms that add nothing to the variance"""
NOTHING = 1e-12  # next to any variance; of zero itself training would have no gradient


def torchvision_detector(name: str, classes: Sequence[str] | None = None) -> TorchvisionDetector:
    """A detector of torchvision with fresh weights.

    name: one of FAMILIES. classes: without the background; None: those of COCO, numbered as the published weights are.
    UnknownNameError, FieldError.
    """
    from torchvision.models import detection  # takes a second to load

    if name not in FAMILIES:
        raise unknown("detector of torchvision", name, FAMILIES)
    if classes is not None and not (1 <= len(set(classes)) == len(classes) <= MOST_CLASSES):
        raise FieldError("classes", f"be 1 to {MOST_CLASSES:,} names, none twice", list(classes))
    columns = [number for number in range(1, 91) if number not in FREE_NUMBERS]
    if classes is not None:
        columns = list(range(1, len(classes) + 1))
    outputs = 91 if classes is None else len(classes) + 1
    model = getattr(detection, name)(weights=None, weights_backbone=None, num_classes=outputs)
    if name in EXACT:
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = NOTHING
    return FAMILIES[name](name, model, coco.CLASSES if classes is None else classes, columns)


def load(name: str, weights: Path, classes: Sequence[str] | None = None) -> TorchvisionDetector:
    """The same with weights of a safetensors file, for attacks. InputError as of `load_weights`."""
    detector = torchvision_detector(name, classes)
    load_weights(detector.model, weights)
    frozen(detector)
    return detector


def _counts(anchor_generator: Any, levels: Sequence[Tensor]) -> tuple[int, ...]:
    """How many priors each level has. levels: features (batch, channels, rows, columns) of each."""
    places = anchor_generator.num_anchors_per_location()
    return tuple(place * each.shape[2] * each.shape[3] for place, each in zip(places, levels, strict=True))


def _back(corners: Tensor, resized: Any, images: Tensor) -> Tensor:
    """Corners (..., 4) in pixels of the images, of corners in pixels of the resized ones."""
    (height, width), (given_height, given_width) = resized.image_sizes[0], images.shape[2:]
    across, down = given_width / width, given_height / height
    return corners * corners.new_tensor([across, down, across, down])
