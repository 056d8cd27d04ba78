"""Training of detectors: the loss against plain loops, that it learns, killed and resumed, and what does not fit."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from jobs.common.data.boxes.scenes import scenes
from jobs.common.detection.boxes import Boxes
from jobs.common.detection.detectors import TRAINABLE
from jobs.common.detection.grid import GridDetector
from jobs.common.detection.letterbox import letterbox
from jobs.common.detection.training import (
    NOTHING,
    DetectorStep,
    DetectorTrainingParams,
    TrainingBoxes,
    focal,
    losses,
    mirrored,
    nearest_shape,
    train,
)
from jobs.common.models.architectures import weights_from
from jobs.common.training import parallel
from jobs.common.training.engine import EngineParams
from jobs.common.training.optimizers import OptimizerParams
from jobs.common.training.schedules import CosineDecay, WarmUp
from service.errors import FieldError, InputError
from service.run import Run
from service.store import open_store
from tests.jobs.common.detection.made import overlap
from tests.jobs.killed import KilledAtReport
from tests.ranks import answers

SIDE = 48
SMALL = DetectorTrainingParams(updates=60, batch=8, report_every=20, held_out=20)

RATES = OptimizerParams(
    learning_rate=1e-2, weight_decay=0.0, warm_up=WarmUp(kind="linear", period=10), decay=CosineDecay()
)
FAST = DetectorTrainingParams(updates=60, batch=16, report_every=30, held_out=30, optimizer=RATES)


def small(name: str = "one_anchor", classes: tuple[str, ...] = ("person",), seed: int = 0, **options: Any) -> Any:
    with weights_from(seed):
        return TRAINABLE[name](**{"classes": classes, "side": SIDE, "width": 0.5, **options})


def by_hand(detector: GridDetector, outputs: Tensor, corners: Tensor, labels: Tensor) -> tuple[float, float, float]:
    """The losses of a batch: for each prior in turn, which box is its own, and whether it overlaps another."""
    objectness = boxes = classes = 0.0
    batch, anchors, rows, columns = outputs.shape[:4]
    stride = detector.stride
    for image in range(batch):
        owners: dict[tuple[int, int, int], int] = {}
        real = [place for place in range(labels.shape[1]) if labels[image, place] != NOTHING]
        for place in real:
            left, top, right, bottom = corners[image, place].tolist()
            shape = [0, 0, right - left, bottom - top]
            fits = [overlap(shape, [0, 0, *anchor]) for anchor in detector.anchors.tolist()]
            cell = int((top + bottom) / 2 // stride), int((left + right) / 2 // stride)
            owners[fits.index(max(fits)), cell[0], cell[1]] = place
        for anchor in range(anchors):
            for row in range(rows):
                for column in range(columns):
                    across, down, wide, high, logit, *scores = outputs[image, anchor, row, column].tolist()
                    width, height = detector.anchors[anchor].tolist()
                    x, y = (column + 0.5 + across) * stride, (row + 0.5 + down) * stride
                    w, h = width * math.exp(wide), height * math.exp(high)
                    box = [x - w / 2, y - h / 2, x + w / 2, y + h / 2]
                    p = 1 / (1 + math.exp(-logit))
                    own = owners.get((anchor, row, column))
                    if own is not None:
                        left, top, right, bottom = corners[image, own].tolist()
                        targets = [(left + right) / 2 / stride - column - 0.5, (top + bottom) / 2 / stride - row - 0.5]
                        targets += [math.log((right - left) / width), math.log((bottom - top) / height)]
                        objectness -= (1 - p) ** 2 * math.log(p)
                        answers = (across, down, wide, high)
                        boxes += sum((a - b) ** 2 for a, b in zip(answers, targets, strict=True))
                        label = int(labels[image, own])
                        classes -= scores[label] - math.log(sum(map(math.exp, scores)))
                    elif all(overlap(box, corners[image, place].tolist()) < 0.5 for place in real):
                        objectness -= p**2 * math.log(1 - p)
    return objectness / batch, boxes / batch, classes / batch


@pytest.mark.parametrize("name", TRAINABLE)
def test_the_loss_by_plain_loops(name: str) -> None:
    detector = small(name, ("person", "tree", "dog"))
    stream = torch.Generator().manual_seed(1)
    cells = SIDE // detector.stride
    outputs = 0.3 * torch.randn(3, len(detector.anchors), cells, cells, 8, generator=stream)
    low = torch.rand(3, 5, 2, generator=stream) * 30
    sizes = torch.tensor([8.0, 24.0]) * (0.7 + 0.6 * torch.rand(3, 5, 2, generator=stream))
    corners = torch.cat([low, low + sizes], 2)
    labels = torch.randint(NOTHING, 3, (3, 5), generator=stream)
    labels[2] = NOTHING  # an image without a box
    corners[0, 1], labels[0, :2] = corners[0, 0] + 0.01, 1  # two boxes of one prior: the later one counts
    expected = by_hand(detector, outputs, corners, labels)
    computed = losses(detector, outputs, corners, labels, 0.5)
    assert [float(part) for part in vars(computed).values()] == pytest.approx(expected, rel=1e-4)


def test_the_loss_is_a_mean_over_images() -> None:
    """So ranks that share a batch add up to one process."""
    detector = small()
    outputs = torch.randn(4, 1, 6, 6, 6, generator=torch.Generator().manual_seed(0))
    corners = torch.tensor([[[4.0, 4, 12, 30]], [[20, 10, 31, 40]], [[1, 1, 9, 20]], [[0, 0, 0, 0]]])
    labels = torch.tensor([[0], [0], [0], [NOTHING]])
    whole = losses(detector, outputs, corners, labels, 0.5)
    halves = [losses(detector, outputs[part], corners[part], labels[part], 0.5) for part in ([0, 1], [2, 3])]
    for name, value in vars(whole).items():
        torch.testing.assert_close(sum(vars(half)[name] for half in halves) / 2, value)


def test_no_box_in_a_batch_has_a_finite_loss_and_gradient() -> None:
    detector = small()
    outputs = torch.randn(2, 1, 6, 6, 6, requires_grad=True)
    nothing = losses(detector, outputs, torch.zeros(2, 1, 4), torch.full((2, 1), NOTHING), 0.5)
    (nothing.objectness + nothing.boxes + nothing.classes).backward()
    assert outputs.grad is not None and bool(outputs.grad.isfinite().all()) and nothing.boxes.item() == 0


def test_the_focal_loss_of_one() -> None:
    # by hand: p = 0.8 of what is there: 0.2^2 x -ln 0.8; of what is not there: 0.8^2 x -ln 0.2
    logit = torch.full((2,), math.log(4.0))
    values = focal(logit, torch.tensor([1.0, 0.0])).tolist()
    assert values == pytest.approx([0.04 * -math.log(0.8), 0.64 * -math.log(0.2)])


def test_the_nearest_shape() -> None:
    boxes = torch.tensor([[5.0, 5, 20, 45], [0, 0, 30, 70], [7, 7, 7, 7]])
    assert nearest_shape(boxes, torch.tensor([[15.0, 40], [24, 64]])).tolist() == [0, 1, 0]


def test_a_mirrored_image_has_its_boxes_mirrored() -> None:
    images = torch.zeros(1, 3, SIDE, SIDE)
    images[:, :, 5:9, 30:40] = 1
    corners = mirrored(torch.tensor([30.0, 5, 40, 9]), SIDE)
    left, top, right, bottom = corners.long().tolist()
    assert bool((images.flip(3)[:, :, top:bottom, left:right] == 1).all()) and (right - left, bottom - top) == (10, 4)


def test_batches_are_the_same_again_and_know_only_the_detectors_classes() -> None:
    set_ = scenes("train", SIDE, 40)
    data = TrainingBoxes(set_, 10, 8, torch.tensor([NOTHING, 0]), True, lambda *key: sum(map(hash, key)) % 1000)
    first, again = data.batch(2), data.batch(2)
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    images, corners, labels = first
    assert images.shape == (8, 3, SIDE, SIDE) and corners.shape[:2] == labels.shape
    trees = [int((set_.boxes(int(place)).labels == 1).sum()) for place in data.trained.indices]
    assert set(labels.flatten().tolist()) <= {NOTHING, 0} and labels.shape[1] <= max(trees)


def trained(detector: GridDetector, run: Any, params: DetectorTrainingParams = SMALL, count: int = 100) -> GridDetector:
    train(detector, scenes("train", SIDE, count), params, run)
    return detector


def test_it_learns(make_run: Any) -> None:
    run = make_run()
    detector = trained(small(classes=("tree", "person")), run, FAST, 200)
    first, last = run.rows
    assert last["train_loss"] < 0.5 * first["train_loss"] and last["train_classes"] < 0.7 * first["train_classes"]
    assert run.metrics["val_ap50"] > 0.1 and run.metrics["val_recall"] > 0.1, run.rows
    assert not detector.training and not detector.network.training


@pytest.mark.parametrize(("name", "keep"), [("one_anchor", "last"), ("two_anchors", "best")])
def test_killed_and_resumed_is_the_same_as_undisturbed(make_run: Any, name: str, keep: Any) -> None:
    params = SMALL.model_copy(update={"updates": 9, "report_every": 3, "keep": keep})
    run = make_run("undisturbed")
    undisturbed = trained(small(name), run, params)
    with pytest.raises(KeyboardInterrupt):
        trained(small(name), make_run("killed", kind=KilledAtReport), params)
    again = make_run("killed")
    resumed = trained(small(name, seed=1), again, params)
    for (key, one), other in zip(resumed.state_dict().items(), undisturbed.state_dict().values(), strict=True):
        assert torch.equal(one, other), key
    assert again.rows == run.rows and [row["step"] for row in run.rows] == [3, 6, 9]


def test_two_detectors_in_one_run(make_run: Any) -> None:
    run = make_run()
    params = SMALL.model_copy(update={"updates": 2, "report_every": 2})
    for place, name in enumerate(TRAINABLE):
        train(small(name), scenes("train", SIDE, 40), params, run, name, first_step=2 * place)
    assert {"one_anchor_train_loss", "one_anchor_val_ap50", "two_anchors_val_recall"} <= run.metrics.keys()
    assert [row["step"] for row in run.rows] == [2, 4]


def test_a_frame_of_another_side_than_the_images() -> None:
    """Boxes are scaled with the images."""
    detector = small(side=2 * SIDE).eval()
    step = DetectorStep(detector, scenes("train", SIDE, 40), SMALL, lambda *key: 0, "")
    images, corners, labels = step.data.batch(0)
    reported = step.backward((images, corners, labels), 0)
    enlarged, _ = letterbox(images, 2 * SIDE, 2 * SIDE)
    expected = losses(detector, detector.outputs(enlarged), 2 * corners, labels, SMALL.tolerated)
    assert float(reported["boxes"].total) / reported["boxes"].weight == pytest.approx(expected.boxes.item())
    assert float(reported["objectness"].total) / 8 == pytest.approx(expected.objectness.item())


class Unlabelled:
    """Scenes in which nothing that the detector knows is boxed."""

    name, classes, side, boxed_by, remarks, digest = "unlabelled", ("stone",), SIDE, None, (), ""

    def __len__(self) -> int:
        return 30

    def images(self, places: Tensor) -> Tensor:
        return torch.rand(len(places), 3, SIDE, SIDE)

    def boxes(self, place: int) -> Boxes:
        return Boxes(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))


def test_what_does_not_fit(make_run: Any) -> None:
    with pytest.raises(InputError, match="unlabelled has none of the classes of the detector, person; it has stone"):
        train(small(), Unlabelled(), SMALL, make_run())
    with pytest.raises(FieldError, match="training.held_out must be below 10"):
        trained(small(), make_run(), count=10)
    with pytest.raises(InputError, match="a training set of 5 instances does not fill one batch of 8"):
        trained(small(), make_run(), count=25)
    half = SMALL.model_copy(update={"engine": EngineParams(precision="bfloat16")})
    with pytest.raises(FieldError, match="engine.precision must be float32 where training has no GPU"):
        trained(small(), make_run(), half)


def test_images_without_boxes_are_learnt_from(make_run: Any) -> None:
    run = make_run()
    train(small(classes=("stone",)), Unlabelled(), SMALL.model_copy(update={"updates": 3, "held_out": 5}), run)
    assert math.isfinite(run.metrics["train_loss"]) and run.metrics["val_ap50"] == 0


SHARED = FAST.model_copy(update={"updates": 3, "report_every": 3, "batch": 5})


def on_each_rank(folder: str) -> dict[str, Any]:
    run = Run(open_store(folder) / f"rank {parallel.rank()}", 0)
    detector = trained(small(), run, SHARED)
    return {**detector.state_dict(), "loss": torch.tensor(run.rows[-1]["train_loss"])}


@pytest.mark.slow
def test_two_processes_that_share_each_batch(make_run: Any, tmp_path: Any) -> None:
    """Ranks have 3 and 2 images with numbers of boxes of their own: the same weights as one process."""
    run = make_run("alone")
    alone = dict(trained(small(), run, SHARED).state_dict())
    for shared in answers(on_each_rank, str(tmp_path)):
        assert float(shared.pop("loss")) == pytest.approx(run.rows[-1]["train_loss"], rel=1e-3)
        for name, tensor in alone.items():
            torch.testing.assert_close(shared[name], tensor, rtol=5e-3, atol=1e-3)
