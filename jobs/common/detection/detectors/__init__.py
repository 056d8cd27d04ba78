"""Detectors by name: those that learn here, and those that others have trained. Another is another line here.

Each takes images (batch, 3, height, width) in [0, 1] of any size. Weights of those that learn are drawn from torch's
global generator.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from jobs.common.detection import darknet_file
from jobs.common.detection.base import Detector, frozen
from jobs.common.detection.detectors.one_anchor import one_anchor
from jobs.common.detection.detectors.two_anchors import two_anchors
from jobs.common.detection.grid import GridDetector
from jobs.common.imports import resolve
from jobs.common.models.architectures import build_network
from service.errors import unknown

TRAINABLE: dict[str, Callable[..., GridDetector]] = {"one_anchor": one_anchor, "two_anchors": two_anchors}

PRETRAINED: dict[str, str | Callable[..., Detector]] = {
    "yolov3_tiny": "jobs.common.detection.detectors.yolov3_tiny:load",
    "nanodet": "jobs.common.detection.detectors.nanodet:load",
    "centernet": "jobs.common.detection.detectors.centernet:load",
    "mtcnn": "jobs.common.detection.detectors.mtcnn:load",
    "centerface": "jobs.common.detection.detectors.centerface:load",
}
"""of the objects of COCO and, the last two, of faces; rebuilt from the files of packages, which `make data` fetches"""


DARKNET = {
    "yolov3": "jobs.common.detection.detectors.yolov3:YoloV3",
    "yolov3_tiny": "jobs.common.detection.detectors.yolov3_tiny:YoloV3Tiny",
}
"""those whose weights darknet writes, without them"""


def _imported(path: str, **arguments: Any) -> nn.Module:
    """What an import path builds: its module is imported when it is asked for."""
    build: Callable[..., nn.Module] = resolve(path, {}, "detector")
    return build(**arguments)


def _loaded(name: str) -> nn.Module:
    """A pretrained detector from the files of its package. A card may not say from which folder they are read."""
    build: Callable[[], nn.Module] = resolve(name, PRETRAINED, "detector")
    return build()


ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    **TRAINABLE,
    # files of these say how the network is built, so they have to be there
    **{name: partial(_loaded, name) for name in ("nanodet", "centernet", "centerface")},
    "mtcnn": partial(_imported, "jobs.common.detection.detectors.mtcnn:Mtcnn"),
    **{name: partial(_imported, path) for name, path in DARKNET.items()},
    "torchvision": partial(_imported, "jobs.common.detection.detectors.torchvision_detectors:torchvision_detector"),
}
"""what a card of the model store may name; the store has the weights"""


def from_file(name: str, weights: Path, **arguments: Any) -> Detector:
    """One whose weights are in a file of the user's own, for attacks, and on the CPU.

    name: of DARKNET, with a file as darknet writes it, or torchvision's, with a safetensors file. arguments: of the
    architecture. UnknownNameError. InputError if an argument is refused, or the file is not there or of another one.
    """
    if name in DARKNET:
        detector = build_network(name, ARCHITECTURES, "detector", **arguments)
        assert isinstance(detector, Detector)
        darknet_file.load(detector, weights)
        return frozen(detector)
    from jobs.common.detection.detectors import torchvision_detectors  # takes a second to load

    if name not in torchvision_detectors.FAMILIES:
        raise unknown("detector with weights in a file", name, [*DARKNET, *torchvision_detectors.FAMILIES])
    return torchvision_detectors.load(name, weights, **arguments)
