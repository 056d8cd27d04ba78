"""How much farther apart a network's outputs can be than its inputs, in L2.

`upper_limit` is sound, and often far too large. `estimate` is the largest stretch at some points, so never too large:
what rests on it is an estimate.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.autograd.functional import jvp, vjp

from service.errors import FieldError, InputError

CONTRACTIONS = (nn.ReLU, nn.Tanh, nn.Identity, nn.Dropout, nn.Flatten, nn.Unflatten)
"""layers with a constant of 1, as they are in evaluation mode"""
SIGMOID = 0.25
SMOOTH = 20.0
"""from where on softplus may be replaced by its argument without a step that float32 knows: the default of PyTorch"""


def estimate(generator: Callable[[Tensor], Tensor], latents: Tensor, iterations: int = 30) -> float:
    """The largest singular value of the generator's Jacobian at the given points: at most its Lipschitz constant.

    By power iteration from a fixed direction, in the precision of the latents. generator: (1, ...) -> (1, ...), without
    noise of its own. latents: (count, ...). FieldError: no latents; InputError: outputs that are not finite.
    """
    if not len(latents):
        raise FieldError("latents", "be at least 1 vector", len(latents))
    start = torch.randn(latents[:1].shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    largest = 0.0
    for latent in latents.detach()[:, None]:  # each a batch of one
        direction = (start / start.norm()).to(latent)
        value = 0.0
        for _ in range(iterations):
            outputs, stretched = jvp(generator, latent, direction)  # type: ignore[no-untyped-call]
            if not bool(outputs.isfinite().all()):
                raise InputError("the generator must give finite outputs; some are NaN or infinite")
            value = float(stretched.norm())
            pulled = vjp(generator, latent, stretched)[1]  # type: ignore[no-untyped-call]
            if not float(pulled.norm()):
                break
            direction = pulled / pulled.norm()
        largest = max(largest, value)
    return largest


def modulus_estimate(
    generator: Callable[[Tensor], Tensor], latents: Tensor, radius: float, draws: torch.Generator
) -> float:
    """The largest distance of outputs of latent vectors that are `radius` apart, each from a random neighbour of its
    own.

    At most the modulus of continuity of the generator at the radius. latents: (count, ...).
    """
    if not len(latents):
        raise FieldError("latents", "be at least 1 vector", len(latents))
    if not (radius > 0 and math.isfinite(radius)):
        raise FieldError("radius", "be above 0 and finite", radius)
    steps = torch.randn(latents.shape, generator=draws, dtype=latents.dtype).to(latents.device)
    steps *= radius / steps.flatten(1).norm(dim=1).reshape(-1, *[1] * (latents.dim() - 1))
    with torch.no_grad():
        moved = generator(latents + steps) - generator(latents)
    return float(moved.flatten(1).norm(dim=1).max())


def upper_limit(network: nn.Module, shape: tuple[int, ...]) -> float:
    """The product of the Lipschitz constants of the layers in L2: at least that of the network, up to rounding.

    network: nn.Sequential, also nested, in evaluation mode, of linear layers, convolutions and transposed ones with
    zeros around them, batch norms, poolings, nearest enlargements by a whole number and the usual activations, without
    hooks. shape: of one input, without the batch. InputError names a layer that is not known.
    """
    if any(part.training for part in network.modules()):
        sentence = "the generator must be in evaluation mode; a part of it is in training mode"
        raise InputError(sentence, hint="call eval()")
    product, values = 1.0, torch.zeros(1, *shape)
    for name, layer in _layers(network):
        product *= _constant(name, layer, values)
        with torch.no_grad():
            values = layer(values)
    return product


def convolution_norm(weight: Tensor, size: tuple[int, int], stride: tuple[int, int] = (1, 1)) -> float:
    """At least the L2 norm of a convolution with zeros around images of a size, (height, width).

    weight: (out, in, kernel height, kernel width). The convolution is a part of a circular one on a torus that is
    larger by the kernel: the norm of that is the largest of its transfer matrices over all frequencies (Sedghi et al.
    2019). With a stride, a frequency of the outputs takes in all frequencies of the inputs that fold into it.
    """
    folds = [math.ceil((size[axis] + weight.shape[2 + axis] - 1) / stride[axis]) for axis in (0, 1)]
    torus = [folds[axis] * stride[axis] for axis in (0, 1)]
    transfer = torch.fft.fft2(weight.double(), s=torus)  # (out, in, rows, columns)
    transfer = transfer.unflatten(3, (stride[1], folds[1])).unflatten(2, (stride[0], folds[0]))
    matrices = transfer.permute(3, 5, 0, 1, 2, 4).flatten(3)  # (rows, columns, out, in and what folds)
    return float(torch.linalg.matrix_norm(matrices, ord=2).max()) / math.sqrt(math.prod(stride))


def _layers(network: nn.Module, name: str = "") -> list[tuple[str, nn.Module]]:
    """In the order in which they compute, one that is used twice two times."""
    if not isinstance(network, nn.Sequential) or _altered(network):
        return [(name or "the generator", network)]
    parts = [(place, part) for place, part in network._modules.items() if part is not None]
    return [layer for place, part in parts for layer in _layers(part, f"{name}.{place}".lstrip("."))]


def _altered(layer: nn.Module) -> bool:
    """Whether it may compute something else than the layer of PyTorch that it is an instance of."""
    own_forward = not layer.forward.__module__.startswith("torch.nn.modules.")
    return own_forward or bool(layer._forward_hooks or layer._forward_pre_hooks)


def _constant(name: str, layer: nn.Module, inputs: Tensor) -> float:
    """Of one layer, for inputs of the shape of these."""
    match layer:
        case _ if _altered(layer):
            pass
        case nn.Linear():
            return float(torch.linalg.matrix_norm(layer.weight.detach().double(), ord=2))
        case nn.Conv2d() | nn.ConvTranspose2d() if layer.dilation == (1, 1) and layer.padding_mode == "zeros":
            # the transposed one is the adjoint of a convolution of images of the size of its outputs
            images = inputs if isinstance(layer, nn.Conv2d) else layer(inputs)
            size, stride = (images.shape[-2], images.shape[-1]), (layer.stride[0], layer.stride[1])
            groups = layer.weight.detach().chunk(layer.groups)
            return max(convolution_norm(group, size, stride) for group in groups)
        case nn.BatchNorm1d() | nn.BatchNorm2d() if layer.running_var is not None:
            scale = (layer.running_var + layer.eps).rsqrt()
            return float((scale if layer.weight is None else scale * layer.weight.detach()).abs().max())
        case nn.LeakyReLU():
            return max(1.0, abs(layer.negative_slope))
        case nn.ELU():
            return max(1.0, abs(layer.alpha))
        case nn.Sigmoid():
            return SIGMOID
        case nn.Upsample() if layer.mode == "nearest" and _whole(layer.scale_factor):
            sides = inputs.dim() - 2
            factors = layer.scale_factor if isinstance(layer.scale_factor, tuple) else (layer.scale_factor,) * sides
            return math.sqrt(math.prod(float(factor) for factor in factors if factor))
        case nn.MaxPool2d() if _apart(layer) and layer.dilation in (1, (1, 1)) and not layer.return_indices:
            return 1.0
        case nn.AvgPool2d() if _apart(layer) and layer.divisor_override is None and not layer.ceil_mode:
            # with ceil_mode a window at the edge is smaller, and an average of fewer pixels shrinks less
            kernel = layer.kernel_size if isinstance(layer.kernel_size, tuple) else (layer.kernel_size,) * 2
            return 1 / math.sqrt(math.prod(kernel))
        case nn.Softplus() if layer.threshold >= SMOOTH:
            return 1.0
        case _ if isinstance(layer, CONTRACTIONS):
            return 1.0
    raise InputError(f"of layer {name}, a {type(layer).__name__}, no Lipschitz constant is known here")


def _apart(layer: nn.MaxPool2d | nn.AvgPool2d) -> bool:
    """Whether each pixel is in one window."""
    return layer.kernel_size == layer.stride and layer.padding in (0, (0, 0))


def _whole(factor: float | tuple[float, ...] | None) -> bool:
    factors = factor if isinstance(factor, tuple) else (factor,)
    return all(each is not None and float(each).is_integer() for each in factors)
