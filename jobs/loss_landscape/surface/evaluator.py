"""The loss and the accuracy of a network at any point of a line or a plane through its weights, fast.

    evaluator = Evaluator(network, axes, images, labels, EvaluatorParams())
    scores = evaluator.at((0.5, -0.25))               # at theta + 0.5 d - 0.25 e

What is fast: batch norm is folded where no direction moves it, ReLU and sums are fused into the convolutions, the
images lie in memory channels last and normalised, and all moving weights are one vector, of which a point is a sum of
two or three. It is exact but for the order of float sums. bfloat16 is not: computation.py checks it against float32.
"""

import copy
import math
from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, fx, nn

from jobs.common.batch_size import largest_batch
from jobs.common.imports import resolve
from jobs.common.mean_loss.losses import LOSSES
from jobs.common.mean_loss.scores import Scores, correct
from jobs.common.models import fused_convolution, graph
from jobs.common.models.weights import Direction, places
from jobs.common.params import StudyParams
from jobs.common.passes import Batches
from jobs.loss_landscape.surface import first_layer
from jobs.loss_landscape.surface.moving_weights import MovingNetwork
from service.run import reserved_device

PrecisionName = Literal["float32", "bfloat16"]

PIXELS = 1 << 18  # in a batch on a CPU: its features fit the cache, its overhead is small
GPU_PIXELS = 1 << 22  # where results depend on the batch
CENSOR_AFTER = 256  # images, from which a point may be taken to be above the bound
CENSOR_ERRORS = 4.0  # standard errors by which its mean loss has to be above


class EvaluatorParams(StudyParams):
    """How the loss at a point is computed."""

    loss: str = Field(
        "cross_entropy",
        description="cross_entropy, mse (of softmax against one-hot), or an import path mypackage.module:function of "
        "logits (batch, classes) and labels (batch,) that returns a loss for each image",
    )
    precision: PrecisionName = Field(
        "float32",
        description="of the forward passes. bfloat16 is about twice as fast where the processor has it, and float32 is "
        "used where it does not; the centre, points of a loss below 0.1, one point in a hundred and what is not finite "
        "are computed in float32 as well",
    )
    batch: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="images at once; none: what fits the caches, on a GPU the largest power of two that fits its "
        "memory, unless points are censored, which depends on it",
    )
    fold: bool = Field(True, description="fold batch norm and fuse layers where that changes nothing but rounding")
    censor_above: float | None = Field(
        None, gt=0, description="stop early at points whose mean loss is above this with near certainty; none: never"
    )


class Evaluator:
    """Computes the loss at points theta + x d + y e, one after another."""

    def __init__(
        self, network: nn.Module, axes: Sequence[Direction], images: Tensor, labels: Tensor, params: EvaluatorParams
    ) -> None:
        """network: images -> logits (batch, classes); it is left as it is. axes: none, one or two directions.

        images: float32 (n, channels, height, width), as the network takes them. labels: int64 (n,).
        """
        self._device = reserved_device()
        self._images = {torch.float32: images.to(self._device)}
        self._labels = labels.to(self._device)
        self._loss = resolve(params.loss, LOSSES, "loss")
        self._censor = params.censor_above
        pixels = PIXELS if self._device.type == "cpu" else GPU_PIXELS
        size = params.batch or max(8, pixels // (images.shape[-1] * images.shape[-2]))
        self.batches = Batches(size, "points of a surface", may_shrink=False)
        self.policy = ["channels last"]
        """what was done to be fast, in words"""
        if params.precision == "bfloat16" and not self._has_bfloat16():
            self.policy.append("float32 after all: this processor has no bfloat16")

        network = copy.deepcopy(network).eval().requires_grad_(False).float()
        axes = list(axes)
        self._first: first_layer.CachedLayer | None = None
        traced = graph.trace(network) if params.fold else None
        if traced is not None:
            network, axes = traced, self._shorten(traced, axes, images)
        self._base = network.to(self._device).to(memory_format=torch.channels_last)
        if self._first is not None:
            self._first.to(self._device)
        self._axes = axes
        self._moving: dict[torch.dtype, MovingNetwork] = {}
        if params.batch is None and self._device.type != "cpu" and self._censor is None:
            self.batches = Batches(self._largest_batch(), "points of a surface")
            self.policy.append(f"batches of {self.batches.size}, the largest that fit")

    def _largest_batch(self) -> int:
        """On a GPU, where what comes out depends on it by rounding alone."""
        moving = self._moving[torch.float32] = MovingNetwork(self._base, self._axes, torch.float32, self._device)
        point = [0.0] * len(self._axes)
        moving.move(point)

        def attempt(size: int) -> None:
            with torch.no_grad():
                self._logits(moving, torch.float32, slice(size), point)
            if self._first is not None:
                self._first.forget()

        return largest_batch(attempt, len(self._labels), self._device)

    def _logits(self, moving: MovingNetwork, dtype: torch.dtype, rows: slice, point: Sequence[float]) -> Tensor:
        if self._first is not None:
            self._first.show(moving.network, self._images[torch.float32][rows], rows.start or 0, point)
        logits: Tensor = moving.network(self._images[dtype][rows]).float()
        return logits

    def _shorten(self, traced: fx.GraphModule, axes: list[Direction], images: Tensor) -> list[Direction]:
        some = images[:2]
        norms = _count_norms(traced)
        axes = graph.fold(traced, axes)
        self.policy.append(f"{norms - _count_norms(traced)} of {norms} batch norms folded")
        first = first_layer.cacheable_layer(traced, some, len(images), len(axes))
        if self._device.type == "cpu" and fused_convolution.can_fuse():
            graph.fuse(traced, some, leave=first)
            fused = sum(isinstance(module, fused_convolution.FusedConvolution) for module in traced.modules())
            self.policy.append(f"{fused} convolutions fused with what follows")
        if first is not None:
            self._first = first_layer.CachedLayer(traced, first, axes)
            self.policy.append(f"layer {first.target} as a sum of {1 + len(axes)} tensors")
            left = places(traced)
            axes = [{name: tensor for name, tensor in axis.items() if name in left} for axis in axes]
        return axes

    def _has_bfloat16(self) -> bool:
        return self._device.type != "cpu" or fused_convolution.has_bfloat16()

    def at(self, point: Sequence[float], precision: PrecisionName = "float32") -> Scores:
        """The scores at a point. point: a coordinate for each axis."""
        dtype = torch.bfloat16 if precision == "bfloat16" and self._has_bfloat16() else torch.float32
        if dtype not in self._moving:
            self._moving[dtype] = MovingNetwork(self._base, self._axes, dtype, self._device)
            if dtype not in self._images:
                self._images[dtype] = self._images[torch.float32].to(dtype)
        moving = self._moving[dtype]
        moving.move(point)
        count = len(self._labels)
        losses = torch.empty(count, device=self._device)
        right = torch.empty(count, dtype=torch.bool, device=self._device)

        @torch.no_grad()
        def scores(rows: slice) -> int:
            logits = self._logits(moving, dtype, rows, point)
            losses[rows] = self._loss(logits, self._labels[rows])
            right[rows] = correct(logits, self._labels[rows])
            return int(rows.stop)

        for done in self.batches.over(scores, count):
            if self._censor is not None and done < count and _is_above(losses[:done], self._censor):
                return Scores(losses[:done].cpu(), right[:done].cpu(), censored=True)
        return Scores(losses.cpu(), right.cpu(), censored=False)


def _is_above(losses: Tensor, bound: float) -> bool:
    """Whether the mean is above a bound with near certainty, after these. What is not finite says nothing."""
    if len(losses) < CENSOR_AFTER:
        return False
    wide = losses.double()
    return bool(wide.mean() - CENSOR_ERRORS * wide.std() / math.sqrt(len(losses)) > bound)


def _count_norms(network: nn.Module) -> int:
    return sum(isinstance(module, graph.NORMS) for module in network.modules())
