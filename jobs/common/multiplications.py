"""The work of a network: the multiplications of each layer, counted in its calls to torch while it runs.

torch.utils.flop_counter counts one level deeper, but its first use imports torch's compiler, which takes seconds.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode


@dataclass(frozen=True)
class LayerWork:
    """One convolution, transposed or not, one linear layer or one product of matrices."""

    macs: int
    """multiplications, each with an addition"""
    numbers: int
    """in its input and its output, without its weights"""


class CountMacs(TorchFunctionMode):
    """Inside of it, `layers` grows by every convolution and matrix product, in the order of the calls.

    Also on the meta device, which computes nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layers: list[LayerWork] = []

    @property
    def total(self) -> int:
        """Multiplications so far."""
        return sum(layer.macs for layer in self.layers)

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if (count := _COUNTED.get(func)) and len(args) > 1:
            self.layers.append(LayerWork(count(result, args[0], args[1]), args[0].numel() + result.numel()))
        return result


def _convolution(result: Tensor, inputs: Tensor, weight: Tensor) -> int:
    return result.numel() * weight[0].numel()  # weight: (channels out, channels in, *kernel)


def _transposed(result: Tensor, inputs: Tensor, weight: Tensor) -> int:
    return inputs.numel() * weight[0].numel()  # weight: (channels in, channels out, *kernel)


def _product(result: Tensor, left: Tensor, right: Tensor) -> int:
    return result.numel() * left.shape[-1]


_COUNTED: Mapping[Any, Callable[[Tensor, Tensor, Tensor], int]] = {
    **dict.fromkeys((torch.conv1d, torch.conv2d, torch.conv3d), _convolution),
    **dict.fromkeys((torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d), _transposed),
    **dict.fromkeys((functional.linear, torch.matmul, torch.mm, torch.bmm, Tensor.matmul, Tensor.mm), _product),
}
