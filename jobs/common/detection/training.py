"""Training of a detector with a grid of priors: which prior stands for which box, the loss, and the validation.

Each box belongs to the cell of its centre and to the anchor whose shape is nearest. Objectness has a focal loss (Lin et
al. 2017, "Focal loss for dense object detection"): most priors are easy, and hold nothing. A prior whose box overlaps a
true one that is another's counts neither way, as in YOLO (Redmon & Farhadi 2018, section 2.1).
"""

from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from jobs.common.data.batches import Epochs
from jobs.common.data.boxes.base import BoxSet, Part
from jobs.common.data.training_data import SeedFor, hold_out
from jobs.common.detection import average_precision, rates
from jobs.common.detection.base import Detector
from jobs.common.detection.boxes import Boxes, overlaps
from jobs.common.detection.grid import GridDetector
from jobs.common.detection.letterbox import letterbox
from jobs.common.params import StudyParams
from jobs.common.passes import passes
from jobs.common.training import loop, parallel
from jobs.common.training.averages import Term
from jobs.common.training.engine import Batch, Engine, EngineParams
from jobs.common.training.optimizers import OptimizerParams, device_of
from jobs.common.training.schedules import CosineDecay, WarmUp
from service.errors import InputError
from service.run import Run

NOTHING = -1
"""the label of what fills up the rows of an image with fewer boxes than others"""
FOCUS = 2.0  # power of the focal loss: how little the easy priors count
CONFIDENCE = 0.5  # of the recall in validation
PASS = 64  # images that are validated together on a CPU


class DetectorTrainingParams(StudyParams):
    """How a detector is trained. The default does it on generated scenes in about a minute of one core."""

    updates: int = Field(400, ge=1, le=100_000_000, description="weight updates")
    batch: int = Field(16, ge=1, le=100_000, description="images in an update, over all workers")
    optimizer: OptimizerParams = Field(
        OptimizerParams(
            kind="adam",
            learning_rate=3e-3,
            weight_decay=0.0,
            warm_up=WarmUp(kind="linear", period=100),
            decay=CosineDecay(),
        ),
        description="how the weights are moved; its ticks are updates",
    )
    box_weight: float = Field(1.0, ge=0, le=1000, description="weight of the loss of boxes beside that of objectness")
    tolerated: float = Field(
        0.5, gt=0, le=1, description="overlap with a true box from which a prior that is not its own does not count"
    )
    flip: bool = Field(True, description="whether half of the images are mirrored, drawn at random")
    engine: EngineParams = Field(EngineParams(), description="how the network computes while it trains")
    report_every: int = Field(100, ge=1, description="weight updates between two validations, each with a checkpoint")
    held_out: int = Field(100, ge=1, description="training images that are kept for validation")
    keep: Literal["last", "best"] = Field("last", description="weights to keep: the last, or the best in validation")


@dataclass(frozen=True)
class Losses:
    """The means over the images of a batch, each a scalar."""

    objectness: Tensor
    boxes: Tensor
    classes: Tensor


def train(
    detector: GridDetector,
    images: BoxSet,
    params: DetectorTrainingParams,
    run: Run,
    name: str = "",
    first_step: int = 0,
) -> None:
    """Train a detector in place. Goes on from the run's checkpoint if there is one, to the same weights bit for bit.

    images: of which those boxes are learnt whose classes the detector has. name: sets it apart in seeds, metrics and
    checkpoints, "" if it is the only one. first_step: at which rows of metrics begin.
    Logs train_loss, train_objectness, train_boxes and train_classes (means over images since the last report), val_ap50
    and val_recall (means over classes, on images held out), all after the name. RunFailedError if the loss stops being
    finite. InputError: half precision without a GPU, too few images, or none of the classes.
    """
    params.engine.check(device_of(detector))
    prefix = f"{name}_" if name else ""
    step = DetectorStep(detector, images, params, partial(_seed, run, name), prefix)
    plan = loop.Plan(
        updates=params.updates,
        rates=params.optimizer,
        report_every=params.report_every,
        seed=lambda update: None,
        best_by=f"{prefix}val_ap50" if params.keep == "best" else None,
        phase=name.replace("_", "-").lower() or "main",
        prefix=prefix,
        first_step=first_step,
    )
    optimizer = params.optimizer.build([(1.0, list(detector.network.parameters()))])
    loop.train(step, optimizer, step.data, plan, run)
    detector.eval()


def _seed(run: Run, name: str, purpose: str, *key: int) -> int:
    return run.seed_for(purpose, name, *key)


class TrainingBoxes:
    """Images with their boxes in batches, of which each rank makes its rows alone."""

    def __init__(
        self, images: BoxSet, held_out: int, batch: int, labels: Tensor, flip: bool, seed_for: SeedFor
    ) -> None:
        """held_out: images that training never sees. labels: int64 (classes of the images,), by their label: the label
        of the detector, or NOTHING. InputError if what is left does not fill one batch.
        """
        rows = hold_out(len(images), held_out, seed_for("split"))
        self.held_out, self.trained = Part(images, rows.held_out), Part(images, rows.trained)
        self._epochs = Epochs(len(rows.trained), batch, lambda epoch: seed_for("order", epoch))
        self._labels, self._flip, self._seed_for = labels, flip, seed_for

    def batch(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """This rank's rows of batch number `index`: float (rows, 3, side, side) in [0, 1], corners (rows, most, 4) and
        labels int64 (rows, most), NOTHING where an image has no more boxes.
        """
        chosen = self._epochs.indices(index)
        stream = torch.Generator().manual_seed(self._seed_for("flip", index))
        flipped = parallel.share(torch.rand(len(chosen), generator=stream) < 0.5)
        chosen = parallel.share(chosen)
        boxes = [self.known(self.trained.boxes(place)) for place in chosen.tolist()]
        most = max(1, *map(len, boxes))
        corners = torch.zeros(len(boxes), most, 4)
        labels = torch.full((len(boxes), most), NOTHING)
        for row, each in enumerate(boxes):
            corners[row, : len(each)], labels[row, : len(each)] = each.corners, each.labels
        images = self.trained.images(chosen)
        if self._flip:
            images = torch.where(flipped[:, None, None, None], images.flip(3), images)
            corners = torch.where(flipped[:, None, None], mirrored(corners, self.trained.side), corners)
        return images, corners, labels

    def known(self, boxes: Boxes) -> Boxes:
        """The boxes of classes that the detector has, with its labels."""
        labels = self._labels[boxes.labels]
        return Boxes(boxes.corners, labels).at(labels != NOTHING)


class DetectorStep(loop.Step):
    """An update by the loss of a batch of images with boxes."""

    def __init__(
        self, detector: GridDetector, images: BoxSet, params: DetectorTrainingParams, seed_for: SeedFor, prefix: str
    ) -> None:
        """FieldError if too many images are held out; InputError if there are too few, or none of the classes."""
        super().__init__(Engine(detector.network, params.engine))
        self.detector, self.params, self.prefix = detector, params, prefix
        labels = [detector.classes.index(each) if each in detector.classes else NOTHING for each in images.classes]
        if all(label == NOTHING for label in labels):
            known, given = ", ".join(detector.classes), ", ".join(images.classes)
            raise InputError(f"{images.name} has none of the classes of the detector, {known}; it has {given}")
        self.data = TrainingBoxes(images, params.held_out, params.batch, torch.tensor(labels), params.flip, seed_for)

    def backward(self, batch: Batch, update: int) -> dict[str, Term]:
        images, corners, labels = batch
        frames, placement = letterbox(images, self.detector.side, self.detector.side)  # both are squares
        with self.engine.autocast():
            outputs = self.detector.outputs(frames)
        parts = losses(self.detector, outputs, corners * placement.across, labels, self.params.tolerated)
        loss = parts.objectness + self.params.box_weight * parts.boxes + parts.classes
        rows, whole = len(images), self.params.batch
        loss = parallel.part_of_mean(loss, rows, whole)
        self.engine.scaled(loss).backward()  # type: ignore[no-untyped-call]
        return {
            "loss": Term(loss.detach(), 1),
            **{name: Term(part.detach() * rows, whole) for name, part in vars(parts).items()},
        }

    def validate(self, progress: loop.Progress) -> dict[str, float]:
        truth = [self.data.known(self.data.held_out.boxes(place)) for place in range(len(self.data.held_out))]
        metrics = validated(self.detector, self.data.held_out, truth)
        return {f"{self.prefix}val_{name}": value for name, value in metrics.items()}


def validated(detector: Detector, images: BoxSet, truth: list[Boxes]) -> dict[str, float]:
    """ap50 and recall at a confidence of one half, the means over the classes that the truth has; 0 without any.

    truth: of each image, with the detector's labels.
    """
    device, places = device_of(detector), torch.arange(len(images))

    def detected(rows: slice) -> list[Boxes]:
        return detector.detect(images.images(places[rows]).to(device))

    parts = passes(detected, len(images), detector, detector.side, purpose="validation", on_cpu=PASS)
    found = [boxes for part in parts for boxes in part]
    labels = sorted({label for boxes in truth for label in boxes.labels.tolist()})
    if not labels:
        return {"ap50": 0.0, "recall": 0.0}
    matches = [average_precision.matches(found, truth, label) for label in labels]
    ap50 = [float(average_precision.precisions(each, thresholds=1)[0]) for each in matches]
    recalls = [rates.rates(rates.fates(found, truth, label, CONFIDENCE)).recall for label in labels]
    return {"ap50": sum(ap50) / len(ap50), "recall": sum(recalls) / len(recalls)}


def losses(detector: GridDetector, outputs: Tensor, corners: Tensor, labels: Tensor, tolerated: float) -> Losses:
    """The losses of a batch, each the sum over an image's priors, averaged over images.

    outputs: (batch, anchors, rows, columns, 4 + 1 + classes). corners: (batch, most, 4) in pixels of the frame.
    labels: int64 (batch, most). tolerated: as in the parameters.
    """
    batch, anchors, rows, columns = outputs.shape[:4]
    image, place = (labels != NOTHING).nonzero(as_tuple=True)  # of each box
    boxes = corners[image, place]
    anchor = nearest_shape(boxes, detector.anchors)
    row, column, offsets = detector.encoded(boxes, anchor)
    prior = ((image * anchors + anchor) * rows + row) * columns + column
    # of two boxes of one prior the later one counts
    owner = torch.full((batch * anchors * rows * columns,), -1, device=outputs.device)
    owner = owner.scatter_reduce(0, prior, torch.arange(len(prior), device=outputs.device), "amax")
    chosen = (owner >= 0).nonzero()[:, 0]
    flat = outputs.reshape(len(owner), -1)
    answers, whose = flat[chosen], owner[chosen]

    with torch.no_grad():
        decoded = detector.decoded(outputs[..., :4]).reshape(batch, -1, 4)
        near = torch.stack(
            [
                overlaps(each, true).masked_fill(label == NOTHING, 0).amax(1) >= tolerated
                for each, true, label in zip(decoded, corners, labels, strict=True)
            ]
        ).flatten()
    target = (owner >= 0).to(flat.dtype)
    counted = ((owner >= 0) | ~near).to(flat.dtype)
    objectness = focal(flat[:, 4], target) * counted
    return Losses(
        objectness.sum() / batch,
        functional.mse_loss(answers[:, :4], offsets[whose], reduction="sum") / batch,
        functional.cross_entropy(answers[:, 5:], labels[image, place][whose], reduction="sum") / batch,
    )


def focal(logits: Tensor, target: Tensor) -> Tensor:
    """The binary cross entropy of each, less the surer it is right: times (1 - p)^2, p its probability of the target.

    logits, target: one shape, targets 0 or 1. Source: Lin et al. 2017, equation 4.
    """
    entropy = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return entropy * (1 - torch.exp(-entropy)) ** FOCUS


def nearest_shape(corners: Tensor, anchors: Tensor) -> Tensor:
    """The anchor that overlaps each box most, were both in one place: int64 (n,). corners: (n, 4). anchors: (k, 2)."""
    sides = (corners[:, 2:] - corners[:, :2]).clamp_min(0)
    ours, theirs = (torch.cat([torch.zeros_like(each), each], 1) for each in (sides, anchors))
    return overlaps(ours, theirs).argmax(1)


def mirrored(corners: Tensor, side: int) -> Tensor:
    """Corners (..., 4) in a mirrored image. side: its width in pixels."""
    left, top, right, bottom = corners.unbind(-1)
    return torch.stack([side - right, top, side - left, bottom], -1)
