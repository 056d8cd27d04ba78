"""ProxProp: proximal steps of the layers in the place of their gradients, for any optimizer to go along.

With A the inputs of a layer (for each image, and each place of a convolution, a row; a column of ones stands for the
bias), X its weights and G the gradient of the loss by its outputs A X, a layer's next weights would be

    argmin_Z  1/2 |A Z - (A X - G)|^2 + 1 / (2 tau) |Z - X|^2

The optimizer is given X - Z = (A^T A + I / tau)^-1 A^T G, in which A^T G is the gradient by the weights.

Source: Frerix et al. 2018 ("Proximal backpropagation"), section 3. The equations are solved exactly; the code
released with it, and with Huang et al. 2020, takes up to ten steps of conjugate gradients.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from jobs.common.training import parallel
from service.errors import InputError

MOST = 1 << 24  # numbers in the patches of some images, which are written out


class ProximalSteps:
    """Watches the linear layers and convolutions of a network while it is trained."""

    def __init__(self, network: nn.Module, tau: float) -> None:
        """InputError if there is a convolution of several groups, or with another padding than zeros of a number."""
        self._tau = tau
        self._layers = [layer for layer in network.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
        self._squares: dict[nn.Module, Tensor] = {}
        """A^T A since the last update, (inputs, inputs) for each layer asked: float64, as 1 / tau may be small"""
        for layer in self._layers:
            if isinstance(layer, nn.Conv2d):
                _check(layer)
        self._hooks = [layer.register_forward_hook(self._watch) for layer in self._layers]

    def close(self) -> None:
        """Watch no more."""
        for hook in self._hooks:
            hook.remove()

    def replace_gradients(self) -> None:
        """Put proximal steps in the place of the gradients of all layers that were asked since the last time."""
        squares, self._squares = self._squares, {}
        for layer in self._layers:
            if layer not in squares or layer.weight.grad is None:
                continue
            square = parallel.total(squares[layer])
            square.diagonal().add_(1 / self._tau)
            gradient = layer.weight.grad.flatten(1).T  # (inputs, outputs)
            if layer.bias is not None and layer.bias.grad is not None:
                gradient = torch.cat([gradient, layer.bias.grad[None]])
            factor = torch.linalg.cholesky_ex(square).L  # of what is not finite nothing finite, without an error
            steps = torch.cholesky_solve(gradient.double(), factor)
            inputs = layer.weight[0].numel()
            layer.weight.grad.copy_(steps[:inputs].T.view_as(layer.weight))
            if layer.bias is not None and layer.bias.grad is not None:
                layer.bias.grad.copy_(steps[inputs])

    def _watch(self, layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if not (layer.training and torch.is_grad_enabled()):
            return
        with torch.no_grad():
            square = _square(layer, inputs[0].detach().double())
            self._squares[layer] = self._squares[layer] + square if layer in self._squares else square


def _square(layer: nn.Linear | nn.Conv2d, features: Tensor) -> Tensor:
    """A^T A of the inputs of a layer: (inputs, inputs), one more where it has a bias."""
    ones = layer.bias is not None
    if isinstance(layer, nn.Linear):
        rows = features.flatten(0, -2)
        rows = torch.cat([rows, rows.new_ones(len(rows), 1)], 1) if ones else rows
        return rows.T @ rows
    size = layer.weight[0].numel() + ones
    square = features.new_zeros(size, size)
    assert not isinstance(layer.padding, str)
    places = features.shape[2:].numel()
    for part in torch.split(features, max(1, MOST // (size * places))):
        patches = functional.unfold(part, layer.kernel_size, layer.dilation, layer.padding, layer.stride)
        rows = patches.transpose(0, 1).flatten(1)  # (inputs, images and places)
        rows = torch.cat([rows, rows.new_ones(1, rows.shape[1])]) if ones else rows
        square += rows @ rows.T
    return square


def _check(layer: nn.Conv2d) -> None:
    if layer.groups > 1 or layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        raise InputError(
            "proximal steps are for convolutions of one group, padded with a number of zeros; the network has "
            f"groups={layer.groups}, padding={layer.padding!r}, padding_mode={layer.padding_mode!r}"
        )
