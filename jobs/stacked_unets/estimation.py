"""What a training costs, before it is done: weights, multiply-adds, and how long they take on a core here."""

import torch

from jobs.common.data.masks import DataParams
from jobs.common.data.masks.augmentation import JointAugmentationParams
from jobs.common.estimation import TRAINING, Passes, measured_once, multiply_adds, training_seconds
from jobs.stacked_unets.network_params import NetworkParams
from jobs.stacked_unets.padding import any_size
from jobs.stacked_unets.training import TrainingParams
from service.run import Estimate

TRIED = 64  # side of the images that are timed, in pixels
MADE = ("satellite", "shapes", "composites")
CLASSES = {"satellite": 3, "shapes": 4, "composites": 5, "voc2012": 21, "cityscapes": 19}


def estimate(network: NetworkParams, data: DataParams, training: TrainingParams) -> Estimate:
    """Training alone: tests are a small part of it. The data need not be there."""
    classes = CLASSES.get(data.name, max(len(data.classes), 2))
    network = network.model_copy(update={"pretrained": None})  # which weights it begins with costs nothing
    images = training.updates * training.batch * training.accumulate
    details: dict[str, float | str] = {
        "parameters": parameters_of(network, classes),
        "weight updates": training.updates,
        "images to train on": images,
    }
    if (side := side_of(data, training.augmentation)) is None:
        details["image size"] = "unknown: augmentation.crop does not say how large the images are"
        return Estimate(details=details)
    forward, small = multiply_adds_at(network, classes, side), passes_tried(network, classes)
    details[f"multiply-adds of an image of {side}x{side}"] = forward
    seconds = small.training * forward / small.forward
    return Estimate(core_seconds=images * seconds, multiply_adds=TRAINING * float(forward) * images, details=details)


@measured_once
def parameters_of(network: NetworkParams, classes: int) -> int:
    """Numbers that are learnt."""
    with torch.device("meta"):  # shapes alone
        net = any_size(network.build(classes, 0), classes)
    return sum(parameter.numel() for parameter in net.parameters())


@measured_once
def multiply_adds_at(network: NetworkParams, classes: int, side: int) -> int:
    """Of a forward pass of a square image."""
    with torch.device("meta"):
        net = any_size(network.build(classes, 0), classes)
    return multiply_adds(net, torch.empty(1, 3, side, side, device="meta"))


@measured_once
def passes_tried(network: NetworkParams, classes: int) -> Passes:
    """Of an image of TRIED pixels a side."""
    net, image = any_size(network.build(classes, 0), classes), torch.empty(1, 3, TRIED, TRIED)
    return Passes(multiply_adds(net, image), training_seconds(net, image, 2))


def side_of(data: DataParams, augmentation: JointAugmentationParams) -> int | None:
    """Of the square images that are trained on, in pixels; None if they are as large as the files are."""
    return augmentation.crop or (data.side if data.name in MADE else None)
