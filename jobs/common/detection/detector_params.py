"""A detector in a spec: one that the run trains, one that others have trained, one of the store or the user's own."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue
from torch import nn

from jobs.common.data.boxes.base import BoxSet
from jobs.common.detection.base import Detector
from jobs.common.detection.cards import TASK
from jobs.common.detection.check import as_detector
from jobs.common.detection.detectors import DARKNET, PRETRAINED, TRAINABLE, from_file
from jobs.common.detection.grid import GridDetector
from jobs.common.detection.training import DetectorTrainingParams
from jobs.common.imports import name_of, resolve
from jobs.common.models.architectures import ArchitectureParams, weights_from
from jobs.common.models.reference import ModelReference
from jobs.common.params import ONCE, StudyParams
from service.errors import InputError
from service.run import Run

CATALOGUE = "jobs.common.detection.detectors"
TorchvisionName = Literal[
    "fasterrcnn_mobilenet_v3_large_320_fpn",
    "fasterrcnn_mobilenet_v3_large_fpn",
    "fasterrcnn_resnet50_fpn",
    "fasterrcnn_resnet50_fpn_v2",
    "retinanet_resnet50_fpn",
    "retinanet_resnet50_fpn_v2",
    "fcos_resnet50_fpn",
    "ssd300_vgg16",
    "ssdlite320_mobilenet_v3_large",
]


class TrainedDetector(ArchitectureParams):
    """A small detector that the run trains first, on the training images."""

    catalogue = CATALOGUE

    kind: Literal["train"] = Field("train", description="train it first")
    name: Annotated[str, name_of(TRAINABLE, "detector that learns")] = Field(
        "one_anchor",
        description=f"{', '.join(TRAINABLE)}, or an import path mypackage.module:build, which is called with classes, "
        "side and the options, and returns a GridDetector of jobs.common.detection.grid",
    )
    classes: Annotated[tuple[str, ...], ONCE] = Field((), description="classes of the data that it learns; none: all")
    training: DetectorTrainingParams = Field(DetectorTrainingParams(), description="how it is trained")

    def arguments(self, images: BoxSet) -> dict[str, Any]:
        """What the architecture is called with."""
        return {"classes": list(self.classes or images.classes), "side": images.side, **self.options}

    def build(self, images: BoxSet, seed: int) -> GridDetector:
        """With fresh weights, drawn from the seed. InputError if it refuses its arguments, or is no such detector."""
        build = resolve(self.name, TRAINABLE, "detector that learns")
        try:
            with weights_from(seed):
                detector = build(**self.arguments(images))
        except TypeError as error:
            arguments = self.arguments(images)
            raise InputError(f"detector {self.name!r} refuses its arguments {arguments}: {error}") from error
        if not isinstance(detector, GridDetector):
            raise InputError(
                f"detector {self.name!r} must be a GridDetector of jobs.common.detection.grid, which can be trained "
                f"here; it is a {type(detector).__name__}"
            )
        return detector


class PretrainedDetector(StudyParams):
    """A detector that others have trained, rebuilt from the file of its package."""

    kind: Literal["pretrained"] = Field("pretrained", description="one that others have trained (`make data`)")
    name: Annotated[str, name_of(PRETRAINED, "detector")] = Field(
        "yolov3_tiny",
        description=f"{', '.join(PRETRAINED)}, or an import path mypackage.module:load, called without arguments, "
        "which returns a Detector of jobs.common.detection.base",
    )

    @property
    def architecture(self) -> str:
        """The import path that a model card names it by; it takes no arguments."""
        return self.name if ":" in self.name else f"{CATALOGUE}:{self.name}"


class StoredDetector(ModelReference):
    """A detector of the model store, or one that a function of the user's own returns."""

    kind: Literal["model"] = Field("model", description="one that is there, by name or by import path")
    adapter: str | None = Field(
        None,
        pattern=":",
        description="import path mypackage.module:adapt of what makes a Detector of jobs.common.detection.base of a "
        "module, which it is called with; none: it is one",
    )


class TorchvisionDetector(StudyParams):
    """A detector of torchvision, with weights from a file."""

    kind: Literal["torchvision"] = Field("torchvision", description="a model of torchvision, and its weights in a file")
    name: TorchvisionName = Field("fasterrcnn_mobilenet_v3_large_320_fpn", description="torchvision's name of it")
    weights: str = Field(min_length=1, description="path of a safetensors file, by torchvision's names")
    classes: Annotated[tuple[str, ...], ONCE] = Field(
        (), description="names without the background, which is the model's first output; none: those of COCO"
    )

    @property
    def architecture(self) -> str:
        """The import path that a model card names it by."""
        return f"{CATALOGUE}:torchvision"

    @property
    def arguments(self) -> dict[str, Any]:
        """What the architecture is called with."""
        return {"name": self.name, **_named(self.classes)}


class DarknetDetector(StudyParams):
    """A version of YOLOv3, with weights from a file as darknet writes them."""

    kind: Literal["darknet"] = Field("darknet", description="a version of YOLOv3, and its weights in a darknet file")
    name: Annotated[str, name_of(DARKNET, "detector of darknet")] = Field("yolov3", description=" or ".join(DARKNET))
    weights: str = Field(min_length=1, description="path of the file")
    classes: Annotated[tuple[str, ...], ONCE] = Field(
        (), description="their names, in the order of the training; none: those of COCO"
    )
    options: dict[str, JsonValue] = Field(
        {},
        description="keyword arguments: {side: 608} of yolov3, the side of its frame; {fine: [0, 1, 2]} of "
        "yolov3_tiny, the anchors of its fine grid: 1 to 3 of the official weights, 0 to 2 of darknet's table",
    )

    @property
    def architecture(self) -> str:
        """The import path that a model card names it by."""
        return f"{CATALOGUE}:{self.name}"

    @property
    def arguments(self) -> dict[str, Any]:
        """What the architecture is called with."""
        return {**self.options, **_named(self.classes)}


ReadyDetector = PretrainedDetector | StoredDetector | TorchvisionDetector | DarknetDetector
"""one that needs no training"""

DetectorParams = Annotated[
    TrainedDetector | PretrainedDetector | StoredDetector | TorchvisionDetector | DarknetDetector,
    Field(discriminator="kind"),
]
"""any of them"""


def load(section: ReadyDetector, run: Run) -> Detector:
    """A detector that is there, for attacks: in evaluation mode, its weights without gradients, on the CPU.

    InputError, with what to do, if its weights are not there or it is no detector. ModelNotFoundError.
    """
    match section:
        case PretrainedDetector(name=name):
            return as_detector(resolve(name, PRETRAINED, "detector")(), name, tried=":" in name)
        case TorchvisionDetector(name=name, weights=weights, classes=classes):
            return from_file(name, Path(weights).expanduser(), **_named(classes))
        case DarknetDetector(name=name, weights=weights):
            return from_file(name, Path(weights).expanduser(), **section.arguments)
        case StoredDetector(adapter=adapter):
            model = section.load(run)
            model.check_task(TASK)
            if adapter is None:
                return as_detector(model.network, model.name, tried=model.card is None)
            adapt: Callable[[nn.Module], object] = resolve(adapter, {}, "adapter")
            return as_detector(adapt(model.network), f"{model.name} by {adapter}", tried=True)


def _named(classes: Sequence[str]) -> dict[str, list[str]]:
    """The argument for classes, if there are any: without it they are those of COCO."""
    return {"classes": list(classes)} if classes else {}
