"""The card of a detector in the model store."""

from collections.abc import Mapping
from typing import Any

from jobs.common.detection.base import Detector
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
            TensorSpec(name="scores", datatype="FP32", shape=(-1, -1)),
            TensorSpec(name="labels", datatype="INT64", shape=(-1, -1)),
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
