"""From what a detector says at all its places to a few boxes: a least confidence, one box an object, a limit."""

import torch
from torch import Tensor

from jobs.common.detection.boxes import Boxes, areas
from service.errors import FieldError

CANDIDATES = 8192
"""of an image that are compared with each other, the surest: an attack can make a detector sure at all its places"""


def surest(
    corners: Tensor, scores: Tensor, size: tuple[int, int], confidence: float, overlap: float, most: int
) -> list[Boxes]:
    """The boxes of each image, the surest first. A place may give a box of each class.

    corners: (batch, priors, 4), or (batch, priors, classes, 4) where each class has a box of its own. scores: (batch,
    priors, classes) in [0, 1]. size: height and width of the images, to which corners are clipped. confidence, overlap,
    most: as of `Detector.detect`. Ties: the first place, then the first class. Boxes without an area inside the image,
    and what is not a number, are dropped. FieldError.
    """
    check(confidence, overlap, most)
    return [
        _of_image(each, confident, size, confidence, overlap, most)
        for each, confident in zip(corners, scores, strict=True)
    ]


def check(confidence: float, overlap: float, most: int) -> None:
    """FieldError unless boxes can be chosen so."""
    if not 0 < confidence < 1:
        raise FieldError("confidence", "be above 0 and below 1", confidence)
    if not 0 < overlap <= 1:
        raise FieldError("overlap", "be above 0 and at most 1", overlap)
    if most < 1:
        raise FieldError("most", "be at least 1", most)


def clipped(corners: Tensor, size: tuple[int, int]) -> Tensor:
    """Corners (..., 4) moved onto the image where they lie outside. size: height and width."""
    height, width = size
    return torch.minimum(corners.clamp_min(0), corners.new_tensor([width, height, width, height]))


def kept(corners: Tensor, scores: Tensor, labels: Tensor, overlap: float) -> Tensor:
    """Which boxes are left where the less sure of two of a class is dropped: int64 (k,), the surest first.

    corners: (n, 4). scores: (n,). labels: int64 (n,). overlap: intersection over union above which one is dropped.
    """
    from torchvision.ops import nms  # takes a second to load

    apart = corners.double()  # in which boxes far apart are as exact as near the origin
    if len(apart):
        apart = apart + (labels.double() * (apart.max() - apart.min() + 1))[:, None]  # classes never meet
    places: Tensor = nms(apart, scores.double(), overlap)
    return places


def _of_image(
    corners: Tensor, scores: Tensor, size: tuple[int, int], confidence: float, overlap: float, most: int
) -> Boxes:
    """corners: (priors, 4) or (priors, classes, 4). scores: (priors, classes)."""
    places, labels = (scores >= confidence).nonzero(as_tuple=True)
    confident = scores[places, labels]
    order = confident.argsort(descending=True, stable=True)[:CANDIDATES]
    places, labels, confident = places[order], labels[order], confident[order]
    candidates = clipped(corners[places] if corners.ndim == 2 else corners[places, labels], size)
    inside = areas(candidates) > 0  # false of what is not a number
    boxes = Boxes(candidates[inside].float(), labels[inside], confident[inside].float())
    assert boxes.scores is not None
    return boxes.at(kept(boxes.corners, boxes.scores, boxes.labels, overlap)[:most])
