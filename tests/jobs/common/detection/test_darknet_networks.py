"""YOLOv3 and its small version against a plain reading of darknet's own tables of them, and in a spec."""

import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from jobs.common.data.debian import DARKNET_TABLES
from jobs.common.data.sets import default_folder
from jobs.common.detection import darknet_file
from jobs.common.detection.base import weights_hash
from jobs.common.detection.cards import with_weights
from jobs.common.detection.detector_params import DarknetDetector, StoredDetector, load
from jobs.common.detection.detectors import ARCHITECTURES
from service import models
from service.errors import FieldError, InputError, UnknownNameError

TABLES = default_folder() / DARKNET_TABLES.holds
SIDES = {"yolov3_tiny": 416, "yolov3": 96}
CLASSES = 80


def sections(file: Path) -> list[dict[str, str]]:
    """The layers of a table, each with its type."""
    layers: list[dict[str, str]] = []
    for line in file.read_text().splitlines():
        text = line.partition("#")[0].strip()
        if text.startswith("["):
            layers.append({"type": text[1:-1]})
        elif text:
            name, _, value = text.partition("=")
            layers[-1][name.strip()] = value.strip()
    return layers[1:]  # the first says how to train


def interpreted(layers: list[dict[str, str]], numbers: np.ndarray, inputs: Tensor) -> np.ndarray:
    """What a network with these weights answers: of each prior its corners, objectness, first and last class."""
    place, outputs, priors = 0, [], []
    side = inputs.shape[-1]

    def take(count: int) -> Tensor:
        nonlocal place
        place += count
        return torch.from_numpy(numbers[place - count : place].copy())

    for layer in layers:
        match layer["type"]:
            case "convolutional":
                count, size = int(layer["filters"]), int(layer["size"])
                bias = take(count)
                norm = [take(count) for _ in range(3)] if layer.get("batch_normalize") == "1" else []
                kernel = take(count * inputs.shape[1] * size**2).view(count, -1, size, size)
                inputs = functional.conv2d(inputs, kernel, stride=int(layer["stride"]), padding=size // 2)
                if norm:
                    scale, mean, variance = (each[:, None, None] for each in norm)
                    inputs = scale * (inputs - mean) / (variance.sqrt() + 1e-6)
                inputs = inputs + bias[:, None, None]
                if layer["activation"] == "leaky":
                    inputs = torch.where(inputs > 0, inputs, inputs / 10)
            case "maxpool":
                stride = int(layer["stride"])
                if stride == 1:
                    inputs = functional.pad(inputs, (0, 1, 0, 1), value=-1e30)
                inputs = functional.max_pool2d(inputs, 2, stride)
            case "upsample":
                inputs = inputs.repeat_interleave(2, 2).repeat_interleave(2, 3)
            case "shortcut":
                inputs = inputs + outputs[int(layer["from"])]
            case "route":
                inputs = torch.cat([outputs[int(each)] for each in layer["layers"].split(",")], 1)
            case "yolo":
                shapes = np.array(layer["anchors"].replace(" ", "").split(","), float).reshape(-1, 2)
                cells = inputs.shape[-1]
                answers = inputs[0].double().numpy().reshape(-1, 5 + CLASSES, cells, cells)
                for number, answer in zip(map(int, layer["mask"].split(",")), answers, strict=True):
                    for row in range(cells):
                        for column in range(cells):
                            cell = answer[:, row, column]
                            priors.append(prior(cell, shapes[number], row, column, side / cells))
        outputs.append(inputs)
    assert place == len(numbers), "all of the weights are used"
    return np.array(priors)


def prior(answers: np.ndarray, shape: np.ndarray, row: int, column: int, stride: float) -> list[float]:
    x, y, wide, high, objectness, *scores = answers.tolist()
    across, down = (column + sigmoid(x)) * stride, (row + sigmoid(y)) * stride
    width, height = shape[0] * math.exp(wide), shape[1] * math.exp(high)
    corners = [across - width / 2, down - height / 2, across + width / 2, down + height / 2]
    return [*corners, objectness, sigmoid(scores[0]), sigmoid(scores[-1])]


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def written(detector: Any, file: Path) -> np.ndarray:
    """Random weights in darknet's order, and their file."""
    stream = torch.Generator().manual_seed(0)
    parts = []
    for part in darknet_file._parts(detector):
        if part.ndim == 1:
            parts.append(0.75 + 0.5 * torch.rand(part.numel(), generator=stream))
        else:
            parts.append(0.7 / part[0].numel() ** 0.5 * torch.randn(part.numel(), generator=stream))
    numbers = torch.cat(parts).numpy().astype("<f4")
    file.write_bytes(struct.pack("<3iq", 0, 2, 0, 0) + numbers.tobytes())
    return numbers


@pytest.mark.skipif(not TABLES.exists(), reason="`make data` has not fetched darknet's tables")
@pytest.mark.parametrize("name", ["yolov3_tiny", pytest.param("yolov3", marks=pytest.mark.slow)])
def test_it_is_what_darknets_table_says(name: str, tmp_path: Path, make_run: Any) -> None:
    side, file = SIDES[name], tmp_path / "net.weights"
    numbers = written(ARCHITECTURES[name](), file)
    options: dict[str, Any] = {"fine": [0, 1, 2]} if name == "yolov3_tiny" else {"side": side}
    detector = load(DarknetDetector(name=name, weights=str(file), options=options), make_run())
    images = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        priors = detector.priors(images)
        expected = interpreted(sections(TABLES / f"{name.replace('_', '-')}.cfg"), numbers, images)
    assert priors.objectness is not None and priors.classes is not None
    ours = torch.cat([priors.corners, priors.objectness[..., None], priors.classes[..., [0, -1]]], 2)[0]
    torch.testing.assert_close(ours.double(), torch.from_numpy(expected), rtol=1e-3, atol=2e-3)


def test_the_official_file_of_yolov3_has_its_size() -> None:
    with torch.device("meta"):
        detector = ARCHITECTURES["yolov3"]()
    numbers = sum(part.numel() for part in darknet_file._parts(detector))
    assert darknet_file.HEADER + 4 * numbers == 248_007_048


def test_classes_of_the_users_own(tmp_path: Path, make_run: Any) -> None:
    file = tmp_path / "net.weights"
    written(ARCHITECTURES["yolov3_tiny"](classes=["sheep"]), file)
    section = DarknetDetector(name="yolov3_tiny", weights=str(file), classes=("sheep",))
    run = make_run()
    detector = load(section, run)
    assert detector.classes == ("sheep",) and not any(weight.requires_grad for weight in detector.parameters())
    published, card = with_weights("yolov3_tiny", str(file), classes=["sheep"])
    assert (card.architecture, card.arguments) == (section.architecture, section.arguments)
    models.publish(run._store, "sheep", published.state_dict(), card)
    assert weights_hash(load(StoredDetector(name="sheep"), run)) == weights_hash(detector)
    with pytest.raises(UnknownNameError, match="unknown detector with weights in a file 'yolov4'.*yolov3"):
        with_weights("yolov4", str(file))
    with pytest.raises(InputError, match="must have .* bytes, those of this network; it has"):
        load(DarknetDetector(name="yolov3_tiny", weights=str(file)), run)
    with pytest.raises(InputError, match="detector 'yolov3_tiny' refuses its arguments"):
        load(DarknetDetector(name="yolov3_tiny", weights=str(file), options={"side": 96}), run)


@pytest.mark.parametrize(
    ("name", "arguments", "sentence"),
    [
        ("yolov3", {"side": 400}, "side must be a multiple of 32 up to 2,048; it is 400"),
        ("yolov3", {"classes": []}, "classes must be 1 to 1,000 names, none twice"),
        ("yolov3_tiny", {"classes": ["a", "a"]}, "classes must be 1 to 1,000 names, none twice"),
        ("yolov3_tiny", {"fine": [0, 1, 6]}, "fine must be 3 numbers of anchors, 0 to 5"),
        ("yolov3_tiny", {"fine": [0, 1]}, "fine must be 3 numbers of anchors, 0 to 5"),
    ],
)
def test_a_strangers_card(name: str, arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(FieldError, match=sentence):
        ARCHITECTURES[name](**arguments)
