"""Random rays from a network through the space of its weights, under the conventions that a volume is measured by.

Only weights of two or more dimensions move (convolutions, linear layers); biases and batch norm stay. A filter is a
slice of them along dimension 0: an output channel or an output neuron. One that is zero has no length to measure steps
by, so it stays as well. n is the number of weights that move.

filter      each filter moves by a random unit vector of its own, times its norm. This is the direction of the released
            code of Huang et al. 2020. All points at distance r then move every filter by r times its norm: they are a
            product of spheres, not a sphere, so that omega_n E[r^n] is a number of this convention, not a volume.
gaussian    a Gaussian vector in coordinates in which every filter has norm 1, made a unit vector. omega_n E[r^n] is
            then exactly the volume in these coordinates, and times the product of ||w_f||^(d_f) that of the weights.
            At distance r filters move by r / sqrt(filters) of their norms, in the mean square.
adam, hessian   as gaussian, of the same region and so of the same volume, but long where the loss is flat and short
            where it is steep, as far as a diagonal knows it (`preconditioner`); of determinant 1.
            Source: Scherlis & Belrose 2025, "Estimating the Probability of Sampling a Trained Neural Network at
            Random", section 3.

The region around a network is cut off where filters have moved by `cap` times their norms: each of them (filter), or in
the root of the mean square over filters (the others).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from jobs.common.models.directions import filter_norms
from jobs.common.models.weights import tensors
from service.errors import InputError

Convention = Literal["filter", "gaussian", "adam", "hessian"]


@dataclass(frozen=True)
class Filters:
    """The filters of a network that move, in the vector of its state (`stacked_loss.Layout`)."""

    size: int
    """numbers in the state"""
    where: Tensor
    """int64 (n,): the numbers that move"""
    number: Tensor
    """int64 (n,): the filter that each belongs to, from 0 on"""
    norms: Tensor
    """float64 (n,): the norm of that filter"""
    zero: int
    """filters that stay because all their weights are zero"""

    @property
    def n(self) -> int:
        """Weights that move."""
        return len(self.where)

    @property
    def count(self) -> int:
        """Filters that move."""
        return int(self.number[-1]) + 1

    @property
    def log_scale(self) -> float:
        """The sum over filters of d_f ln ||w_f||: the log of the volume of weights in a unit of the coordinates."""
        return float(self.norms.log().sum())


def filters_of(network: nn.Module) -> Filters:
    """The filters of a network. InputError if none can move."""
    moving = set(tensors(network, "weights"))
    offset, count, zero = 0, 0, 0
    where, number, norms = [], [], []
    for name, tensor in tensors(network).items():
        if name in moving and tensor.ndim > 1:
            lengths = filter_norms(tensor.double().cpu()).flatten()
            length = tensor[0].numel()
            alive = lengths > 0
            index = torch.arange(len(lengths) * length).view(-1, length)[alive]
            where.append(offset + index.flatten())
            number.append((count + torch.arange(len(index))).repeat_interleave(length))
            norms.append(lengths[alive].repeat_interleave(length))
            count, zero = count + len(index), zero + int((~alive).sum())
        offset += tensor.numel()
    if not count:
        raise InputError("a basin needs weights of two or more dimensions that are not zero; the network has none")
    return Filters(offset, torch.cat(where), torch.cat(number), torch.cat(norms), zero)


@dataclass(frozen=True)
class Rays:
    """Rays of one network."""

    directions: Tensor
    """(rays, size): the step of the whole state at distance 1, in the type of the weights"""
    caps: Tensor
    """float64 (rays,): the distance at which each leaves the region"""
    lengths: Tensor
    """float64 (rays,): ||d||, in the units of the weights"""
    slopes: Tensor
    """float64 (rays,): w . d over the weights that move"""


def rays(
    filters: Filters, centre: Tensor, convention: Convention, spread: Tensor | None, seeds: Sequence[int], cap: float
) -> Rays:
    """A ray for each seed. centre: the state (size,). spread: float64 (n,), of adam and hessian; else none.

    The same seed gives the same random numbers for every network of an architecture, whatever the convention.
    """
    noise = torch.stack([torch.randn(filters.n, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
    noise = noise.double()  # (rays, n)
    if convention == "filter":
        squares = noise.new_zeros(len(seeds), filters.count).index_add_(1, filters.number, noise.square())
        steps = noise / squares.sqrt()[:, filters.number]
        caps = torch.full((len(seeds),), cap, dtype=torch.float64)
    else:
        steps = noise / noise.norm(dim=1, keepdim=True)
        steps = steps if spread is None else steps * spread
        caps = cap * math.sqrt(filters.count) / steps.norm(dim=1)
    moves = steps * filters.norms
    directions = torch.zeros(len(seeds), filters.size, dtype=centre.dtype)
    directions[:, filters.where] = moves.to(centre.dtype)
    slopes = moves @ centre.cpu().double()[filters.where]
    return Rays(directions.to(centre.device), caps.to(centre.device), moves.norm(dim=1), slopes)
