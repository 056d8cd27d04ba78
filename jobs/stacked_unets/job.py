"""Segmentation by stacked u-nets: train, or fine-tune what was trained to classify; then measure, and look at it.

A stacked u-net is a residual network whose blocks are small u-nets. Each looks far and returns the resolution that it
was given, so the stack gathers context without a module of its own for that.

Metrics, for `sweep.metric` and schedulers (shares in [0, 1]; the means are over classes that the truth has):
    train_loss                      at every report: nats a pixel, since the last report
    val_mean_iou, val_pixel_accuracy, val_mean_accuracy
                                    at every report: on training images held out, as they are
    train_seconds                   at every report: time of training so far, without validation
    mean_iou, pixel_accuracy, mean_accuracy
                                    at the end, on test images, in the first way of testing
    iou_CLASS                       at the end, each class that the test images have
    mean_iou_NAME                   at the end, in each way of testing
    mean_iou_stride_N               at the end, the same weights at another output stride

Specs to begin with: configs/stacked_unets/. Networks are pre-trained as classifiers by the job free_training (method
natural; configs/stacked_unets/imagenet_paper.yaml) and named in network.pretrained.

Source: Shah, Ghosh, Davis & Goldstein 2018, "Stacked U-Nets: a no-frills approach to natural image segmentation".
"""

from collections.abc import Sequence
from typing import Any

from torch import nn

from jobs.common.data.masks.base import MOST_CLASSES, SegmentationSet, labels_in
from jobs.common.data.sets import listed
from jobs.common.data.training_data import TrainingMasks
from jobs.common.metrics.segmentation import IGNORE, scores
from jobs.stacked_unets import estimation, figures
from jobs.stacked_unets.evaluation import evaluate, gains, unets, without
from jobs.stacked_unets.network_params import check_fit
from jobs.stacked_unets.padding import any_size
from jobs.stacked_unets.params import Params
from jobs.stacked_unets.prediction import PredictionParams, predict
from jobs.stacked_unets.training import train
from service.errors import InputError
from service.models import CardDraft, TensorSpec
from service.run import Estimate, Run, Trial

PLACEMENT = "shared_batches"
RESULTS = ("mean_iou", "pixel_accuracy", "mean_accuracy", "train_seconds")  # of every trial


def run(params: Params, run: Run) -> None:
    """Train, then measure."""
    images, test = params.data.load_splits()
    classes = len(images.classes)
    if not 2 <= classes <= MOST_CLASSES:
        raise InputError(f"{images.name} must have 2 to {MOST_CLASSES} classes; it has {classes}")
    keys = list(map(_key, images.classes))
    if alike := [name for name, key in zip(images.classes, keys, strict=True) if keys.count(key) > 1]:
        raise InputError(f"classes of {images.name} must differ in letters or digits; {listed(alike)} do not")
    network = params.network.build(classes, run.seed_for("weights")).to(run.device)
    params.network.start(network, run)
    segmenter = any_size(network, classes)
    check_fit(segmenter, classes, params.network.name)
    plan = params.training
    home = plan.engine.home(run.device)
    data = TrainingMasks(images, plan.held_out, plan.batch, plan.augmentation, run.seed_for, home)
    for part, use in ((data.trained, "train"), (test, "test")):
        if sentence := absent_classes(part, use):
            run.warn(sentence)
    train(segmenter, data, plan, run)

    measure(segmenter, test, params, run)
    if params.evaluation.shown:
        show(segmenter, test, params, run)
    run.save_model(params.model_name, network, _card(params, images, run.metrics))


def absent_classes(images: SegmentationSet, use: str) -> str:
    """A sentence about the classes that no pixel is of; empty if there are none. use: what the images are for."""
    labels = labels_in(images)
    absent = [name for label, name in enumerate(images.classes) if label not in labels]
    if not absent:
        return ""
    sentence = f"no image of {images.name} to {use} has a pixel of {listed(absent)}"
    if IGNORE not in labels:
        return sentence
    return f"{sentence}; pixels of {IGNORE} do not count: if that is a class, say so with data.colours"


def measure(network: nn.Module, test: SegmentationSet, params: Params, run: Run) -> None:
    """Test in all ways, and at all output strides."""
    metrics: dict[str, float] = {}
    ways: list[dict[str, Any]] = []
    for name, way in params.evaluation.ways.items():
        measured = scores(evaluate(network, test, way))
        ways.append({"way": name, "output_stride": "as trained", **measured.metrics()})
        metrics[f"mean_iou_{name}"] = measured.mean_iou
        if len(ways) == 1:
            rows = measured.rows(test.classes)
            metrics |= measured.metrics()
            metrics |= {f"iou_{_key(row['class'])}": row["iou"] for row in rows if row["iou"] is not None}
            run.table("classes", rows, title="Each class on test images")
    first, way = next(iter(params.evaluation.ways.items()))
    for stride in params.evaluation.output_strides:
        measured = scores(evaluate(params.network.at_stride(network, len(test.classes), stride), test, way))
        ways.append({"way": first, "output_stride": str(stride), **measured.metrics()})
        metrics[f"mean_iou_stride_{stride}"] = measured.mean_iou
    run.log(step=run.step, **metrics)
    run.table("ways", ways, title="Ways of testing, and the same weights at other output strides")


def show(network: nn.Module, test: SegmentationSet, params: Params, run: Run) -> None:
    """Pictures of a few test images, and of what each u-net adds to the first of them."""
    way = next(iter(params.evaluation.ways.values()))
    shown = [_segmented(network, test, index, way) for index in range(min(params.evaluation.shown, len(test)))]
    run.figure(
        "segmented",
        figures.side_by_side(shown, test.classes, test.palette),
        title="Test images, their truth, what is predicted, and where the two differ",
    )
    stack = unets(network)
    if not (stack and params.evaluation.leave_out):
        return
    whole = run.metrics["mean_iou"]
    costs = []
    for each in stack:
        with without(each):
            costs.append(100 * (whole - scores(evaluate(network, test, way)).mean_iou))
    run.table(
        "unets",
        [
            {"unet": each.name, "mean_iou_without": whole - cost / 100, "points_lost": cost}
            for each, cost in zip(stack, costs, strict=True)
        ],
        title="Mean IoU on test images if a u-net adds nothing",
    )
    image, labels = test.pair(0)
    gained = gains(network, image.float() / 255, labels)
    additions = [
        figures.Addition(each.name, gain.numpy(), cost) for each, gain, cost in zip(stack, gained, costs, strict=True)
    ]
    run.figure(
        "stack",
        figures.stack(shown[0], test.palette, additions),
        title="What each u-net does for the truth of one image, pixel by pixel, and mean IoU on all without it",
    )


def summarize(trials: Sequence[Trial], run: Run) -> None:
    """All trials in one table; their classes as bars, and their validation during training."""
    finished = [trial for trial in trials if trial.has_results]
    if not finished:
        return
    results = [
        {
            "trial": trial.label,
            "data": trial.params.data.name,
            "network": trial.params.network.name,
            **{name: trial.metrics.get(name) for name in RESULTS},
            **{f"mean_iou_{way}": trial.metrics.get(f"mean_iou_{way}") for way in trial.params.evaluation.ways},
        }
        for trial in finished
    ]
    run.table("results", results, title="Every trial on test images")
    for data in dict.fromkeys(trial.params.data.name for trial in finished):
        alike = [trial for trial in finished if trial.params.data.name == data]
        iou = {trial.label: {row["class"]: row["iou"] for row in trial.table("classes")} for trial in alike}
        run.figure(f"classes_{_key(data)}", figures.iou_bars(iou), title=f"{data}: each class on test images")
    curves = {}
    for trial in finished:
        rows = [row for row in trial.history if "val_mean_iou" in row]
        curves[trial.label] = ([row["step"] for row in rows], [row["val_mean_iou"] for row in rows])
    run.figure("training", figures.training_curves(curves), title="Mean IoU on images held out of training")


def estimate(params: Params) -> Estimate:
    """What a trial costs."""
    return estimation.estimate(params.network, params.data, params.training)


def _segmented(network: nn.Module, test: SegmentationSet, index: int, way: PredictionParams) -> figures.Segmented:
    image, labels = test.pair(index)
    segmentation = predict(network, image.float() / 255, way)
    return figures.Segmented(image.permute(1, 2, 0).numpy(), labels.numpy(), segmentation.labels.numpy())


def _key(name: str) -> str:
    """A name of a class or of a set as a part of a name of a metric."""
    return "".join(character if character.isalnum() else "_" for character in name.rpartition(":")[2].lower())


def _card(params: Params, images: SegmentationSet, metrics: dict[str, float]) -> CardDraft:
    name, count = params.network.name, len(images.classes)
    return CardDraft(
        architecture=params.network.architecture,
        arguments=params.network.arguments(count),
        study="stacked_unets",
        task="segmentation",
        inputs=(TensorSpec(name="images", datatype="FP32", shape=(-1, 3, -1, -1)),),
        outputs=(TensorSpec(name="logits", datatype="FP32", shape=(-1, count, -1, -1)),),
        settings={
            "classes": list(images.classes),
            "palette": [list(colour) for colour in images.palette],
            "ignore": IGNORE,
        },
        metrics=metrics,
        description=f"{images.name} by {name.rpartition(':')[2]}: a class for every pixel",
    )
