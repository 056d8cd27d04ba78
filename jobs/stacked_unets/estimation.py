"""What a training costs, before it is done: weights, multiply-adds, and how long they take on a core here."""

from typing import Any

import torch
from torch import nn

from jobs.common.data.masks import DataParams
from jobs.common.data.masks.augmentation import JointAugmentationParams
from jobs.common.estimation import layer_work, least_seconds
from jobs.stacked_unets.network_params import NetworkParams
from jobs.stacked_unets.training import TrainingParams

TRIED = 64  # side of the images that are timed, in pixels
MADE = ("satellite", "shapes", "composites")
CLASSES = {"satellite": 3, "shapes": 4, "composites": 5, "voc2012": 21, "cityscapes": 19}


def estimate(network: NetworkParams, data: DataParams, training: TrainingParams) -> dict[str, Any]:
    """Names and values for people. The data need not be there."""
    classes = CLASSES.get(data.name, max(len(data.classes), 2))
    with torch.device("meta"):  # shapes alone
        net = network.build(classes, 0)
    told: dict[str, Any] = {"parameters": sum(parameter.numel() for parameter in net.parameters())}
    told["weight updates"] = training.updates
    images = training.updates * training.batch * training.accumulate
    told["images to train on"] = images
    if (side := side_of(data, training.augmentation)) is None:
        return told | {"FLOPs": "unknown: augmentation.crop does not say how large the images are"}
    macs = gmacs(net, side)
    told[f"GMACs for {side}x{side}"] = macs
    told["FLOPs of training"] = 3 * 2e9 * macs * images  # backward takes about twice as much as forward
    told["seconds here on a core"] = images * seconds_of_training(network, classes) * macs / gmacs(net, TRIED)
    return told


def side_of(data: DataParams, augmentation: JointAugmentationParams) -> int | None:
    """Of the square images that are trained on, in pixels; None if they are as large as the files are."""
    return augmentation.crop or (data.side if data.name in MADE else None)


def gmacs(network: nn.Module, side: int) -> float:
    """10^9 multiply-adds of one image, forward. network: on the meta device."""
    work = layer_work(network, torch.empty(1, 3, side, side, device="meta"))
    return sum(layer.macs for layer in work) / 1e9


def seconds_of_training(network: NetworkParams, classes: int) -> float:
    """For a forward and a backward pass of one small image on one core, measured on two."""
    net, images = network.build(classes, 0).train(), torch.rand(2, 3, TRIED, TRIED)

    def passes() -> None:
        net(images).sum().backward()
        net.zero_grad()

    return least_seconds(passes, 2) / 2
