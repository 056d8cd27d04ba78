"""The least that a pass can take: its convolutions and matrix products alone, in the same precision."""

import copy
from typing import Literal

import torch
from torch import Tensor, nn

from tests.gpu.machine import Machine

Gradients = Literal["none", "inputs", "all"]
Layer = nn.Conv1d | nn.Conv2d | nn.ConvTranspose2d | nn.Linear


class Alone:
    """The layers of a network with weights of two dimensions or more, each with an input as in a pass.

    gradients: which are taken besides the pass: of none, by inputs as for an attack, or by weights and inputs.
    """

    def __init__(self, network: nn.Module, inputs: Tensor, dtype: torch.dtype, gradients: Gradients) -> None:
        """network: left as it is. inputs: (batch, ...), of a pass."""
        network = copy.deepcopy(network).to(inputs.device).eval()
        self.gradients = gradients
        shapes: list[tuple[Layer, torch.Size]] = []
        layers = [each for each in network.modules() if isinstance(each, Layer)]
        hooks = [
            layer.register_forward_pre_hook(lambda layer, given: shapes.append((layer, given[0].shape)))
            for layer in layers
        ]
        with torch.no_grad():
            network(inputs)
        for hook in hooks:
            hook.remove()
        self.calls: list[tuple[Layer, Tensor, Tensor]] = []
        for number, (layer, shape) in enumerate(shapes):
            layer = layer.to(dtype).requires_grad_(gradients == "all")
            images = len(shape) == 4 and inputs.device.type != "cpu"
            layer = layer.to(memory_format=torch.channels_last) if images else layer
            given = torch.randn(shape, device=inputs.device, dtype=dtype)
            given = given.contiguous(memory_format=torch.channels_last) if images else given
            given.requires_grad_(gradients == "inputs" or (gradients == "all" and number > 0))
            with torch.no_grad():
                self.calls.append((layer, given, torch.randn_like(layer(given))))

    def __call__(self) -> None:
        for layer, given, slope in self.calls:
            with torch.set_grad_enabled(self.gradients != "none"):
                outputs = layer(given)
            if self.gradients != "none":
                wanted = [each for each in (given, *layer.parameters()) if each.requires_grad]
                torch.autograd.grad(outputs, wanted, slope)


def limits(machine: Machine) -> dict[str, str]:
    """What the card does at most: bytes copied and multiplications in a second, the latter in the lower precision."""
    side = 256 if machine.dry else 8192
    one, other = (torch.randn(side, side, device=machine.device, dtype=machine.half) for _ in range(2))
    source, target = (torch.zeros(side * side, device=machine.device) for _ in range(2))
    took = machine.seconds({"copy": lambda: target.copy_(source), "product": lambda: one @ other}, rounds=3)
    return {
        "memory": f"{8 * side**2 / took['copy'] / 1e9:,.0f} GB/s copied",
        "products": f"{2 * side**3 / took['product'] / 1e12:,.1f} TFLOPS in {str(machine.half).removeprefix('torch.')}",
    }
