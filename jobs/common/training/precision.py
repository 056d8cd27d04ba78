"""Mixed precision: half as many bits where a GPU is faster for it, and a scaled loss where gradients would vanish."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn

from service.errors import InputError

PrecisionName = Literal["float32", "bfloat16", "float16"]


def check_precision(name: PrecisionName, device: torch.device) -> None:
    """InputError if the processor has nothing to gain from half precision."""
    if name != "float32" and device.type == "cpu":
        raise InputError(f"precision: {name} needs a GPU, and this process has none", hint="float32 runs everywhere")


class Precision:
    """In what precision the network computes. Weights, losses and perturbations stay in float32."""

    def __init__(self, name: PrecisionName, device: torch.device) -> None:
        self._dtype: torch.dtype = getattr(torch, name)
        self._device = device
        self.scaler = torch.amp.GradScaler(device.type, enabled=name == "float16")
        """float16 alone needs it: bfloat16 has the range of float32"""

    def autocast(self) -> AbstractContextManager[Any]:
        """Inside, the network computes in this precision."""
        if self._dtype is torch.float32:
            return nullcontext()
        return torch.autocast(self._device.type, self._dtype)

    def scaled(self, loss: Tensor) -> Tensor:
        """The loss whose gradients are to be taken; directions of steepest ascent do not depend on the scale."""
        return self.scaler.scale(loss)

    def step(self, optimizer: torch.optim.Optimizer, network: nn.Module, clip: float | None) -> None:
        """Move the weights along their scaled gradients; left out where these overflowed, and the scale is lowered."""
        if clip is not None:
            self.scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(network.parameters(), clip)
        self.scaler.step(optimizer)
        self.scaler.update()
