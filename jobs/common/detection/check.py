"""Whether what somebody else has built is a detector, seen on one image before hours of computing."""

import torch
from torch import Tensor

from jobs.common.detection.base import Detector, Priors, frozen
from jobs.common.detection.boxes import Boxes
from jobs.common.models.fit import DIFFERENCE, first_pass
from jobs.common.training.optimizers import device_of
from service.errors import InputError

HEIGHT, WIDTH = 96, 128  # of the image that a detector is tried on


def as_detector(built: object, name: str, tried: bool) -> Detector:
    """What was built, for attacks. tried: whether to try it on an image. InputError, one sentence, if it is none."""
    if not isinstance(built, Detector):
        raise InputError(
            f"detector {name!r} must be a Detector of jobs.common.detection.base; it is a {type(built).__name__}",
            hint="an adapter makes one of a module: it says where the priors and their boxes are",
        )
    for part in ("name", "classes", "substitute"):
        if not hasattr(built, part):
            raise InputError(f"detector {name!r} lacks {part}")
    frozen(built)
    if tried:
        check(built, name)
    return built


def check(detector: Detector, name: str) -> None:
    """InputError, one sentence, unless a detector answers an image as it should, alike, and with a gradient."""
    image = torch.rand(1, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0)).to(device_of(detector))
    data = f"an image of {HEIGHT}x{WIDTH}"
    with first_pass(name, data):
        priors, again = detector.priors(image), detector.priors(image)
    _check_priors(priors, detector, name, data)
    if not torch.allclose(priors.corners, again.corners, DIFFERENCE, DIFFERENCE):
        raise InputError(
            f"detector {name!r} must answer the same image alike in evaluation mode; it is random, or keeps something "
            "from one pass to the next"
        )
    with first_pass(name, data):
        boxes = detector.detect(image)
    if len(boxes) != 1 or not isinstance(boxes[0], Boxes) or boxes[0].scores is None:
        raise InputError(f"detector {name!r} must find Boxes with scores, one for each image; it does not")
    logits = detector.priors(image.requires_grad_()).logits(0)
    gradient = torch.autograd.grad(logits.sum(), image, allow_unused=True)[0] if logits.requires_grad else None
    if gradient is None or not bool(gradient.any()) or not bool(torch.isfinite(gradient).all()):
        raise InputError(f"detector {name!r} must have a finite gradient in the pixels of an image; it has none")


def _check_priors(priors: Priors, detector: Detector, name: str, data: str) -> None:
    """InputError unless shapes and ranges are those that base.py says."""
    if not isinstance(priors, Priors):
        raise InputError(f"detector {name!r} must answer with Priors of jobs.common.detection.base")
    count = priors.corners.shape[1] if priors.corners.ndim == 3 else 0
    classes = (1, count, len(detector.classes))
    parts: list[tuple[str, Tensor | None, tuple[int, ...]]] = [
        ("corners", priors.corners, (1, count, 4)),
        ("objectness", priors.objectness, (1, count)),
        ("classes", priors.classes, classes),
        ("class_logits", priors.class_logits, classes),
    ]
    for part, tensor, shape in parts:
        if tensor is None:
            continue
        if tuple(tensor.shape) != shape or not count:
            raise InputError(f"{part} of detector {name!r} must be {shape} for {data}; they are {tuple(tensor.shape)}")
        if not bool(torch.isfinite(tensor).all()):
            raise InputError(f"{part} of detector {name!r} must be finite for {data}; they are not")
    if priors.objectness is None and priors.classes is None:
        raise InputError(f"detector {name!r} must have objectness or classes; it has neither")
    if priors.classes is not None and not bool(((priors.classes >= 0) & (priors.classes <= 1)).all()):
        raise InputError(f"classes of detector {name!r} must be probabilities in [0, 1]; they are not")
    logits = priors.objectness
    if logits is not None and bool(((logits >= 0) & (logits <= 1)).all()):
        raise InputError(
            f"objectness of detector {name!r} must be logits, before the sigmoid; for {data} all of it is in [0, 1]",
            hint="torch.logit(values, eps=1e-6) undoes a sigmoid",
        )
