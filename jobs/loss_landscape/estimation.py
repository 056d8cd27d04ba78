"""What a surface costs, before it is computed: points, images, multiply-adds, and how long they take here and on a GPU.

The time here is measured on one small batch. That of a GPU is calculated, layer by layer: the longer of the time for
its multiply-adds and the time for moving its inputs and outputs, which is what bounds layers of few channels.
"""

import os
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from jobs.common.data.images import DataParams
from jobs.common.data.images.base import Split
from jobs.common.estimation import KNOWN, LayerWork, layer_work, least_seconds
from jobs.common.models.network_params import StoredNetwork, TrainedNetwork
from jobs.common.models.weights import tensors
from jobs.loss_landscape.directions import random_direction
from jobs.loss_landscape.evaluation import Evaluator, EvaluatorParams
from jobs.loss_landscape.grid import GridParams
from jobs.loss_landscape.networks import NetworkParams
from service.errors import InputError


@dataclass(frozen=True)
class Gpu:
    """What its data sheet says. flops: per second in bfloat16, dense. bandwidth: bytes per second."""

    name: str
    flops: float
    bandwidth: float


H100 = Gpu("H100", 989e12, 3.35e12)


def gpu_seconds(work: list[LayerWork], images: int, gpu: Gpu) -> float:
    """The least time in bfloat16, no layer being fused with the next."""
    each = sum(max(2 * layer.macs / gpu.flops, 2 * layer.numbers / gpu.bandwidth) for layer in work)
    return images * each


def estimate(
    network: NetworkParams,
    data: DataParams,
    split: Split,
    images: int | None,
    grid: GridParams,
    evaluation: EvaluatorParams,
) -> dict[str, Any]:
    """Names and values for people. A network of the store is not opened: then only what is to be shown is counted."""
    cells = grid.shape[0] * grid.shape[1]
    try:
        (channels, height, width), train, test, classes = _size(data)
    except InputError as error:
        return {"cells": cells, "images": f"unknown: {error.message}"}
    count = images or (train if split == "train" else test)
    told: dict[str, Any] = {"cells": cells, "images": cells * count}
    if isinstance(network, StoredNetwork):
        return told
    net = network.classifier.build_for(classes, channels, 0).eval()
    work = layer_work(net, torch.rand(1, channels, height, width))
    macs = sum(layer.macs for layer in work)
    told["FLOPs"] = 2.0 * macs * cells * count
    if isinstance(network, TrainedNetwork):
        told["FLOPs of training"] = 3 * 2.0 * macs * network.training.epochs * train
    rate = images_per_second(net, (channels, height, width), evaluation)
    cores = os.cpu_count() or 1
    told["images/s on a core here"] = rate
    told["cores here"] = cores
    told["seconds here"] = cells * count / rate / cores
    told[f"seconds on one {H100.name}, at least"] = gpu_seconds(work, cells * count, H100)
    return told


def images_per_second(network: nn.Module, shape: tuple[int, int, int], evaluation: EvaluatorParams) -> float:
    """Measured on one core with made-up images, in well under a second for small networks."""
    count = evaluation.batch or 64
    pixels = torch.rand(count, *shape, generator=torch.Generator().manual_seed(0))
    axis = random_direction(tensors(network, "weights"), "filter", "biasbn", torch.Generator().manual_seed(0))
    seen = pixels.contiguous(memory_format=torch.channels_last)
    params = evaluation.model_copy(update={"loss": "cross_entropy", "censor_above": None})
    evaluator = Evaluator(network, [axis], seen, torch.zeros(count, dtype=torch.int64), params)
    evaluator.at([0.1], evaluation.precision)
    return count / least_seconds(lambda: evaluator.at([0.2], evaluation.precision), 3)


def _size(data: DataParams) -> tuple[tuple[int, int, int], int, int, int]:
    """Shape, training images, test images, classes. InputError if the set is neither there nor known."""
    try:
        train, test = data.load("train"), data.load("test")
        return train.shape, len(train), len(test), len(train.classes)
    except InputError:
        if data.name not in KNOWN:
            raise
    shape, train_images, test_images, classes = KNOWN[data.name]
    return shape, data.train_limit or train_images, data.test_limit or test_images, classes
