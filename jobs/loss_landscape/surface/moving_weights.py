"""A network whose weights move along directions: all of them are one vector, of which a point is a sum of a few."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from jobs.common.models.weights import Direction, places


class MovingNetwork:
    """A copy of the network whose moving weights are views of one vector."""

    def __init__(self, base: nn.Module, axes: Sequence[Direction], dtype: torch.dtype, where: torch.device) -> None:
        """where: the network is. It may have no weights left, if its only layer is computed in another way."""
        self.network = copy.deepcopy(base).to(dtype)
        held_wide = places(base)
        moved = [name for name in held_wide if any(bool(axis[name].any()) for axis in axes if name in axis)]
        self._start = _flat([getattr(*held_wide[name][0]) for name in moved], where)
        self._axes = [
            _flat([axis.get(name, torch.zeros(getattr(*held_wide[name][0]).shape)) for name in moved], where)
            for axis in axes
        ]
        self._now = self._start.clone()
        self._low = self._now if dtype is torch.float32 else self._now.to(dtype)
        held, offset = places(self.network), 0
        for name in moved:
            shape = getattr(*held_wide[name][0]).shape
            view = _shaped(self._low[offset : offset + shape.numel()], shape)
            offset += shape.numel()
            for module, attribute in held[name]:
                parameter = attribute in module._parameters
                setattr(module, attribute, nn.Parameter(view, requires_grad=False) if parameter else view)

    def move(self, point: Sequence[float]) -> None:
        """Set the weights to theta + x d + y e."""
        self._now.copy_(self._start)
        for coordinate, axis in zip(point, self._axes, strict=True):
            self._now.add_(axis, alpha=coordinate)
        if self._low is not self._now:
            self._low.copy_(self._now)


def _flat(parts: Sequence[Tensor], where: torch.device) -> Tensor:
    """Tensors as one float32 vector, each in the order of memory that convolutions like: channels last."""
    rows = [part.detach().float().to(where) for part in parts]
    ordered = [row.permute(0, 2, 3, 1) if row.ndim == 4 else row for row in rows]
    return torch.cat([torch.zeros(0, device=where), *(row.reshape(-1) for row in ordered)])


def _shaped(part: Tensor, shape: torch.Size) -> Tensor:
    """A stretch of such a vector as the tensor it was, without a copy."""
    if len(shape) != 4:
        return part.view(shape)
    filters, channels, height, width = shape
    return part.view(filters, height, width, channels).permute(0, 3, 1, 2)
