"""What a surface costs, before it is computed: points, images, multiply-adds, and how long they take here and on a GPU.

The time here is measured on one small batch. That of a GPU is calculated, layer by layer: the longer of the time for
its multiply-adds and the time for moving its inputs and outputs, which is what bounds layers of few channels.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch

from jobs.common.curvature.hessian import Hessian
from jobs.common.curvature.spectra_params import PRODUCT
from jobs.common.estimation import (
    TRAINING,
    Architecture,
    Shape,
    layer_work,
    layers_with_weights,
    least_seconds,
    measured_once,
    multiply_adds_of,
    size_of,
    training_seconds_of,
    untrained,
)
from jobs.common.models.directions import random_direction
from jobs.common.models.network_params import PublishedNetwork, StoredNetwork, TrainedNetwork
from jobs.common.models.weights import tensors
from jobs.common.multiplications import LayerWork
from jobs.loss_landscape.params import Params
from jobs.loss_landscape.planes.plane_params import EigenvectorPlane, TrajectoryPlane
from jobs.loss_landscape.surface.evaluator import Evaluator, EvaluatorParams
from service.errors import InputError
from service.run import Estimate

EXTREMES, TOP = 43, 21  # products for both ends of the spectrum, and for one or two eigenvectors


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


def estimate(params: Params) -> Estimate:
    """The surface, the scores of whole splits, the path and the Hessian's eigenvalues, and training.

    A network of the store is not opened: then only points and images are known.
    """
    if params.surface_file is not None:
        return Estimate(pieces=0, details={"surface": "of a file: nothing is computed"})
    points = params.grid.shape[0] * params.grid.shape[1]
    details: dict[str, float | str] = {"points": points}
    try:
        size = size_of(params.data)
    except InputError as error:
        return Estimate(pieces=points, details={**details, "images": f"unknown: {error.message}"})
    shape, train, test, classes = size.shape, size.train, size.test, size.classes
    population = train if params.split == "train" else test
    shown = points * (params.images or population)
    details["images"] = shown
    stored = isinstance(params.network, StoredNetwork)
    network = (
        params.network if isinstance(params.network, StoredNetwork | PublishedNetwork) else params.network.classifier
    )
    layers = 0 if stored or params.spectra is None else layers_with_weights(network, classes, shape[0])
    bent = hessian_images(params, params.images or population, layers)
    if bent:
        details["images in products of the Hessian"] = bent
    if stored:
        if params.spectra is not None and params.spectra.layers:
            details["spectra of single layers"] = "not counted: a network of the store is not opened"
        return Estimate(pieces=points, details=details)

    work = layers_of(network, classes, shape)
    forward = sum(layer.macs for layer in work)
    details[f"seconds on one {H100.name}, at least"] = gpu_seconds(work, shown, H100)
    shown += path_states(params) * (params.images or population)
    shown += population + (train + test if isinstance(params.network, TrainedNetwork) else 0)
    seconds, macs = shown / images_per_second(network, classes, shape, params.evaluation), float(forward * shown)
    if bent:
        seconds += bent * product_seconds(network, classes, shape)
        macs += PRODUCT * forward * bent
    for each in params.networks.values():
        if isinstance(each, TrainedNetwork):
            images = each.training.epochs * train
            macs += TRAINING * multiply_adds_of(each.classifier, classes, shape) * images
            seconds += training_seconds_of(each.classifier, classes, shape) * images
    return Estimate(core_seconds=seconds, multiply_adds=macs, pieces=points, details=details)


def hessian_images(params: Params, images: int, layers: int) -> int:
    """Images that products of the Hessian with a vector are of, counted once for each product.

    images: of the surface. layers: whose spectra are computed. Products are those of Lanczos iterations that settle at
    once, as they do at most points.
    """
    count = 0
    if params.curvature is not None:
        count += params.curvature.steps**params.grid.axes * EXTREMES * min(params.curvature.images, images)
    if isinstance(params.plane, EigenvectorPlane):
        count += TOP * min(params.plane.images, images)
    if params.spectra is not None:
        count += round(params.spectra.products(layers) * min(params.spectra.images, images))
    return count


def path_states(params: Params) -> int:
    """States that the loss is computed of along the path of training, and where it is projected to."""
    if not isinstance(params.plane, TrajectoryPlane) or params.grid.y is None:
        return 0
    assert isinstance(params.network, TrainedNetwork) and params.network.training.keep_every is not None
    return 2 * (1 + math.ceil(params.network.training.epochs / params.network.training.keep_every))


@measured_once
def layers_of(architecture: Architecture, classes: int, shape: Shape) -> list[LayerWork]:
    """The work of every layer for one image."""
    return layer_work(untrained(architecture, classes, shape[0]), torch.rand(1, *shape))


@measured_once
def product_seconds(architecture: Architecture, classes: int, shape: Shape) -> float:
    """Of a product of the Hessian with a vector, for each image: measured on one core with made-up images."""
    network, count = untrained(architecture, classes, shape[0]), 2
    pixels = torch.rand(count, *shape, generator=torch.Generator().manual_seed(0))
    hessian = Hessian(network, pixels, torch.zeros(count, dtype=torch.int64))
    vector = np.ones(hessian.size)
    return least_seconds(lambda: hessian(vector), 2) / count


@measured_once
def images_per_second(architecture: Architecture, classes: int, shape: Shape, evaluation: EvaluatorParams) -> float:
    """Measured on one core with made-up images, in well under a second for small networks."""
    network = untrained(architecture, classes, shape[0])
    count = evaluation.batch or 64
    pixels = torch.rand(count, *shape, generator=torch.Generator().manual_seed(0))
    axis = random_direction(tensors(network, "weights"), "filter", "biasbn", torch.Generator().manual_seed(0))
    images = pixels.contiguous(memory_format=torch.channels_last)
    params = evaluation.model_copy(update={"loss": "cross_entropy", "censor_above": None})
    evaluator = Evaluator(network, [axis], images, torch.zeros(count, dtype=torch.int64), params)
    evaluator.at([0.1], evaluation.precision)
    return count / least_seconds(lambda: evaluator.at([0.2], evaluation.precision), 3)
