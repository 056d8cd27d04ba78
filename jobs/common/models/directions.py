"""Directions in the space of weights: random ones, rescaled to the weights in several ways, and those between models.

A direction is a tensor for each tensor of the network, under the same name. Source: Li et al. 2018, sections 3 and 4,
and their released code, whose rules for tensors with fewer than two dimensions are kept.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from jobs.common.models.weights import Direction, check_alike
from service.errors import InputError

Normalisation = Literal["filter", "layer", "weight", "dfilter", "dlayer", "none"]
Ignore = Literal["none", "biasbn"]

SMALLEST = 1e-10  # added to norms that are divided by
PARALLEL = 1 - 1e-6  # |cosine| from which two axes are one


def random_direction(
    weights: Mapping[str, Tensor], normalisation: Normalisation, ignore: Ignore, generator: torch.Generator
) -> Direction:
    """A Gaussian direction, rescaled tensor by tensor.

    Tensors of fewer than two dimensions (biases, batch norm) are not random: the direction there is the weights
    themselves, so that a step of 1 doubles them, or zero if `ignore` is biasbn.
    """
    direction = {}
    for name, weight in weights.items():
        noise = torch.randn(weight.shape, generator=generator, dtype=torch.float32)
        if weight.ndim > 1:
            direction[name] = rescale(noise, weight, normalisation)
        else:
            direction[name] = torch.zeros_like(noise) if ignore == "biasbn" else weight.float().clone()
    return direction


def rescale(direction: Tensor, weight: Tensor, normalisation: Normalisation) -> Tensor:
    """A tensor of a direction at the scale that a normalisation gives it.

    filter: each filter gets the norm of the same filter of the weights (section 4); a filter is a slice along dimension
    0: an output channel or an output neuron. layer: the whole tensor gets the norm of the weights. weight: each number
    is multiplied with the weight. dfilter, dlayer: norm 1 instead. none: as it is.
    direction, weight: (filters, ...), the same shape. Returns float32. Where the weights are all zero it is zero.
    """
    wide, reference = direction.double(), weight.detach().double()
    match normalisation:
        case "filter":
            wide = wide * (filter_norms(reference) / (filter_norms(wide) + SMALLEST))
        case "layer":
            wide = wide * (reference.norm() / (wide.norm() + SMALLEST))
        case "weight":
            wide = wide * reference
        case "dfilter":
            wide = wide / (filter_norms(wide) + SMALLEST)
        case "dlayer":
            wide = wide / (wide.norm() + SMALLEST)
    return wide.float()


def filter_norms(tensor: Tensor) -> Tensor:
    """The norm of each slice along dimension 0: (filters, 1, ...)."""
    norms: Tensor = tensor.flatten(1).norm(dim=1)
    return norms.view(-1, *[1] * (tensor.ndim - 1))


def between(start: Mapping[str, Tensor], end: Mapping[str, Tensor], what: str) -> Direction:
    """The direction that leads from one model to another in a step of 1, neither rescaled nor cut.

    InputError, naming `what`, if the models are of different architectures.
    """
    check_alike(start, end, what)
    return {name: (end[name].double() - weight.double()).float() for name, weight in start.items()}


def complete(direction: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> Direction:
    """A direction with a zero for each tensor that it does not name. InputError if it does not fit the weights."""
    if unknown := [name for name in direction if name not in weights]:
        raise InputError(f"a direction moves {unknown[0]!r}, which the network has not")
    for name, tensor in direction.items():
        if tensor.shape != weights[name].shape:
            shapes = f"{tuple(tensor.shape)}, the weights are {tuple(weights[name].shape)}"
            raise InputError(f"a direction does not fit: {name!r} is {shapes}")
    return {name: direction.get(name, torch.zeros_like(weight)) for name, weight in weights.items()}


def moved(weights: Mapping[str, Tensor], axes: Sequence[Mapping[str, Tensor]], point: Sequence[float]) -> Direction:
    """The weights at a point: theta + x d + y e. An axis need not name every tensor."""
    tensors = dict(weights)
    for coordinate, axis in zip(point, axes, strict=True):
        for name, tensor in axis.items():
            tensors[name] = tensors[name] + coordinate * tensor
    return tensors


def cosine(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> float:
    """The cosine of the angle between two directions, in [-1, 1]; NaN if one of them is zero."""
    product = sum(float((tensor.double() * second[name].double()).sum()) for name, tensor in first.items())
    lengths = length(first) * length(second)
    return product / lengths if lengths else math.nan


def length(direction: Mapping[str, Tensor]) -> float:
    """The Euclidean norm."""
    return math.sqrt(sum(float(tensor.double().square().sum()) for tensor in direction.values()))


def check_axes(axes: Sequence[Mapping[str, Tensor]]) -> None:
    """InputError if an axis leads nowhere or if two axes are one: there would be no line or no plane."""
    names = "xy"
    for name, axis in zip(names, axes, strict=False):
        if not all(bool(torch.isfinite(tensor).all()) for tensor in axis.values()):
            raise InputError(f"the direction of {name} is not finite")
        if not length(axis):
            raise InputError(f"the direction of {name} is zero: it moves no weight")
    if len(axes) == 2 and abs(angle := cosine(*axes)) > PARALLEL:
        raise InputError(f"the directions of x and y are parallel (cosine {angle:.6f}): they span no plane")
