"""Detectors of torchvision: what they find is what torchvision's own models find; what is attacked; their files."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from jobs.common.detection.base import frozen, weights_hash
from jobs.common.detection.boxes import areas
from jobs.common.detection.detectors import ARCHITECTURES, coco
from jobs.common.detection.detectors.torchvision_detectors import (
    FAMILIES,
    against_others,
    load,
    torchvision_detector,
)
from jobs.common.detection.suppression import clipped
from jobs.common.models.architectures import weights_from
from service.errors import FieldError, InputError, UnknownNameError

# the first of each family, the quickest
RCNN, RETINA, FCOS, SSD = (
    "fasterrcnn_mobilenet_v3_large_320_fpn",
    "retinanet_resnet50_fpn",
    "fcos_resnet50_fpn",
    "ssdlite320_mobilenet_v3_large",
)
CLASSES = ("person", "dog", "cat")


def made(name: str, classes: Any = CLASSES) -> Any:
    """With weights that let something through, and smaller images for what is slow."""
    with weights_from(1):
        detector: Any = torchvision_detector(name, classes)
        model = detector.model
        for part, module in model.named_modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0  # one batch decides
            if isinstance(module, nn.Conv2d | nn.Linear) and not part.startswith("backbone.body"):
                nn.init.kaiming_normal_(module.weight)
        if name in (RETINA, FCOS):
            with torch.no_grad():  # no score is 1, so that none are equal
                model.head.classification_head.cls_logits.weight.mul_(0.2)
            model.transform.min_size, model.transform.max_size = (96,), 160
        resized, _ = model.eval().transform(list(torch.rand(4, 3, 90, 140)))
        features = list(model.train().backbone(resized.tensors).values())
        if name == SSD:
            model.head(features)  # has norms of its own
    return frozen(detector)


@pytest.fixture(scope="module", params=[RCNN, RETINA, FCOS, SSD])
def detector(request: pytest.FixtureRequest) -> Any:
    return made(request.param)


def images(count: int = 2) -> torch.Tensor:
    return torch.rand(count, 3, 90, 140, generator=torch.Generator().manual_seed(0))


def test_it_finds_what_torchvision_finds(detector: Any) -> None:
    """The reference is torchvision's own forward pass, with the same thresholds."""
    model, overlap, most = detector.model, 0.5, 1000
    scores = torch.cat([boxes.scores for boxes in detector.detect(images(), 0.01)])
    confidence = float(scores.sort().values[-100:-98].mean())  # between two of them
    judge = model.roi_heads if hasattr(model, "roi_heads") else model
    judge.score_thresh, judge.nms_thresh, judge.detections_per_img = confidence, overlap, 10**6
    model.topk_candidates = 10**6
    with torch.no_grad():
        expected = model(list(images()))
    found = detector.detect(images(), confidence, overlap, most)
    assert sum(map(len, found)) > 5
    for boxes, theirs in zip(found, expected, strict=True):
        assert boxes.scores is not None
        # labels of theirs begin after the background; their first column of one-stage heads is no class
        # and what lies outside of the image is a box without an area
        keep = (theirs["labels"] > 0) & (areas(theirs["boxes"]) > 0)
        assert len(boxes) == int(keep.sum())
        torch.testing.assert_close(boxes.scores, theirs["scores"][keep].sort(descending=True).values)
        rows = [boxes.corners, 1000.0 * boxes.labels[:, None] + 1000]
        others = [theirs["boxes"][keep], 1000.0 * theirs["labels"][keep, None]]
        apart = torch.cdist(
            torch.cat(rows, 1), torch.cat(others, 1), p=torch.inf
        )  # of each of ours from each of theirs
        assert bool((apart.amin(0) < 0.05).all()) and bool((apart.amin(1) < 0.05).all())


def test_priors_and_their_gradient(detector: Any) -> None:
    before = weights_hash(detector)
    batch = images(1).requires_grad_()
    priors = detector.priors(batch)
    logits = priors.logits(1)
    count = sum(priors.levels)
    assert priors.corners.shape == (1, count, 4) and logits.shape == (1, count)
    if detector.name == RCNN:
        assert priors.classes is None and priors.objectness is not None and detector.substitute is None
    else:
        assert priors.objectness is None and priors.classes.shape == (1, count, 3) and detector.substitute
    logits.square().sum().backward()
    assert batch.grad is not None and bool(batch.grad.isfinite().all()) and bool(batch.grad.any())
    assert weights_hash(detector) == before


@pytest.mark.parametrize("detector", [RETINA, FCOS, SSD], indirect=True)
def test_what_stands_for_objectness(detector: Any) -> None:
    """By the definition of each family, from torchvision's own heads."""
    with torch.no_grad():
        resized, _ = detector.model.transform(list(images(1)))
        answers = detector.model.head(list(detector.model.backbone(resized.tensors).values()))
        logits = detector.priors(images(1)).logits(2)
    scores = answers["cls_logits"][..., 3]  # the third class, after the background
    if detector.name == FCOS:
        scores = scores + answers["bbox_ctrness"][..., 0]
    if detector.name == SSD:
        scores = torch.logit(functional.softmax(answers["cls_logits"].double(), -1)[..., 3]).float()
    torch.testing.assert_close(logits, scores, rtol=1e-4, atol=1e-4)


def test_objectness_is_that_of_the_first_stage() -> None:
    detector = made(RCNN)
    with torch.no_grad():
        resized, features = detector.features(images(1))
        proposals, _ = detector.model.rpn(resized, features)
        priors = detector.priors(images(1))
    inside = clipped(priors.corners[0], (90, 140))
    surest = priors.objectness[0].where(areas(inside) > 1e-3, -torch.inf).argmax()
    height, width = resized.image_sizes[0]
    scale = torch.tensor([140 / width, 90 / height] * 2)
    torch.testing.assert_close(proposals[0][0] * scale, inside[surest], rtol=1e-3, atol=0.05)


@pytest.mark.parametrize("scale", [1.0, 30.0, 300.0])
def test_against_all_others(scale: float) -> None:
    logits = scale * torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    expected = torch.stack(
        [
            logits[:, place].double() - torch.cat([logits[:, :place], logits[:, place + 1 :]], 1).double().logsumexp(1)
            for place in range(6)
        ],
        1,
    )
    torch.testing.assert_close(against_others(logits).double(), expected, rtol=1e-4, atol=1e-4)
    rows = logits.double().requires_grad_()
    assert torch.autograd.gradcheck(against_others, rows[:5].detach().requires_grad_())


def test_coco_is_numbered_as_torchvision_does() -> None:
    """An independent list of the names, with the numbers that no class has."""
    from torchvision.models.detection import FasterRCNN_MobileNet_V3_Large_320_FPN_Weights as Weights

    names = Weights.COCO_V1.meta["categories"]
    detector = torchvision_detector(RCNN)
    assert tuple(names[column] for column in detector.columns.tolist()) == detector.classes == coco.CLASSES
    unused = [name for place, name in enumerate(names) if place not in detector.columns.tolist()]
    assert set(unused) == {"__background__", "N/A"}


def test_weights_of_a_file(tmp_path: Path) -> None:
    source = made(SSD)
    file = tmp_path / "ssd.safetensors"
    # as files of frozen batch norms have them: without the counters
    save_file({name: each for name, each in source.model.state_dict().items() if "num_batches" not in name}, file)
    loaded = load(SSD, file, CLASSES)
    assert torch.equal(loaded.priors(images(1)).logits(0), source.priors(images(1)).logits(0))
    assert not loaded.training and not any(weight.requires_grad for weight in loaded.parameters())
    with pytest.raises(InputError, match="is of another architecture"):
        load(SSD, file, ("person",))
    (tmp_path / "old.pth").write_bytes(b"PK\x03\x04" + bytes(200))
    with pytest.raises(InputError, match="must be safetensors; it is a pickled checkpoint"):
        load(SSD, tmp_path / "old.pth", CLASSES)
    with pytest.raises(InputError, match="cannot be read: No such file"):
        load(SSD, tmp_path / "none.safetensors", CLASSES)


def test_published_norms_add_nothing_to_the_variance() -> None:
    norms = [each for each in made(RETINA).modules() if isinstance(each, nn.BatchNorm2d)]
    assert norms and all(each.eps < 1e-9 for each in norms)


def test_a_card_builds_it() -> None:
    built = ARCHITECTURES["torchvision"](name=SSD, classes=["person"])
    assert built.classes == ("person",)
    with pytest.raises(UnknownNameError, match="unknown detector of torchvision 'ssd30_vgg16'.*ssd300_vgg16"):
        ARCHITECTURES["torchvision"](name="ssd30_vgg16")
    with pytest.raises(FieldError, match="classes must be 1 to 1,000 names"):
        ARCHITECTURES["torchvision"](name=SSD, classes=[])


def test_every_family_is_there() -> None:
    from torchvision.models import detection

    assert all(hasattr(detection, name) for name in FAMILIES)
