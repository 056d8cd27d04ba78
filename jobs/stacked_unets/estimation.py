"""What a training costs, before it is done: weights, multiply-adds, and how long they take on a core here."""

import torch

from jobs.common.data.masks import DataParams
from jobs.common.data.masks.augmentation import JointAugmentationParams
from jobs.common.estimation import TRAINING, multiply_adds, training_seconds
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
    with torch.device("meta"):  # shapes alone
        net = any_size(network.build(classes, 0), classes)
    images = training.updates * training.batch * training.accumulate
    details: dict[str, float | str] = {
        "parameters": sum(parameter.numel() for parameter in net.parameters()),
        "weight updates": training.updates,
        "images to train on": images,
    }
    if (side := side_of(data, training.augmentation)) is None:
        details["image size"] = "unknown: augmentation.crop does not say how large the images are"
        return Estimate(details=details)
    forward, small = (multiply_adds(net, torch.empty(1, 3, each, each, device="meta")) for each in (side, TRIED))
    details[f"multiply-adds of an image of {side}x{side}"] = forward
    real = any_size(network.build(classes, 0), classes)
    seconds = training_seconds(real, torch.empty(1, 3, TRIED, TRIED), 2) * forward / small
    return Estimate(core_seconds=images * seconds, multiply_adds=TRAINING * float(forward) * images, details=details)


def side_of(data: DataParams, augmentation: JointAugmentationParams) -> int | None:
    """Of the square images that are trained on, in pixels; None if they are as large as the files are."""
    return augmentation.crop or (data.side if data.name in MADE else None)
