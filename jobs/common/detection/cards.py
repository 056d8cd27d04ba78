"""The card of a detector in the model store, and detectors that are there with theirs."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jobs.common.detection.base import Detector
from jobs.common.detection.detectors import DARKNET, PRETRAINED, from_file
from jobs.common.imports import resolve
from service.models import CardDraft, TensorSpec

TASK = "object_detection"


def detector_card(
    study: str,
    detector: Detector,
    architecture: str,
    arguments: Mapping[str, Any],
    *,
    metrics: Mapping[str, float],
    description: str,
    settings: Mapping[str, Any] | None = None,
) -> CardDraft:
    """What serving needs to know of a detector: its classes, the side of its frame, what stands for objectness.

    architecture, arguments: what builds it, as module:name, and its keywords as JSON. settings: what the study says
    besides, as JSON.
    """
    return CardDraft(
        architecture=architecture,
        arguments=dict(arguments),
        study=study,
        task=TASK,
        inputs=(TensorSpec(name="images", datatype="FP32", shape=(-1, 3, -1, -1)),),
        outputs=(
            TensorSpec(name="boxes", datatype="FP32", shape=(-1, -1, 4)),
            TensorSpec(name="labels", datatype="INT64", shape=(-1, -1)),
            TensorSpec(name="scores", datatype="FP32", shape=(-1, -1)),
            TensorSpec(name="count", datatype="INT64", shape=(-1,)),
        ),
        settings={
            "classes": list(detector.classes),
            "side": detector.side,
            "substitute": detector.substitute,
            **(settings or {}),
        },
        metrics=dict(metrics),
        description=description,
    )


def pretrained(name: str) -> tuple[Detector, CardDraft]:
    """A detector that others have trained, and its card: what `assay publish` takes.

    UnknownNameError; InputError, with what to do, if its files are not there.
    """
    detector = resolve(name, PRETRAINED, "detector")()
    about = (sys.modules[type(detector).__module__].__doc__ or name).splitlines()[0]
    architecture = f"jobs.common.detection.detectors:{name}"
    return detector, detector_card("invisibility_cloak", detector, architecture, {}, metrics={}, description=about)


def with_weights(name: str, weights: str, **options: Any) -> tuple[Detector, CardDraft]:
    """A detector of darknet or of torchvision with weights of the user's own, and its card: for `assay publish`.

    name, options: as of `from_file`. weights: path of the file. Errors as of `from_file`.
    """
    detector = from_file(name, Path(weights).expanduser(), **options)
    architecture = f"jobs.common.detection.detectors:{name if name in DARKNET else 'torchvision'}"
    arguments = options if name in DARKNET else {"name": name, **options}
    about = f"{name}, which detects {len(detector.classes)} kinds of objects"
    return detector, detector_card(
        "invisibility_cloak", detector, architecture, arguments, metrics={}, description=about
    )
