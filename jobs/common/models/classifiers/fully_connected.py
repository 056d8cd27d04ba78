"""Fully connected networks of any depth, for small images and for points of the plane."""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from service.errors import FieldError

Initialisation = Literal["torch", "glorot_uniform", "glorot_normal"]
MOST_LAYERS, WIDEST = 100, 1 << 14


class AgainstZero(nn.Module):
    """One number as logits of two classes: 0 and the number, so that the cross entropy is that of its sigmoid."""

    def forward(self, logit: Tensor) -> Tensor:
        """(batch, 1) -> (batch, 2)."""
        return functional.pad(logit, (1, 0))


def fully_connected(
    classes: int,
    channels: int,
    side: int = 1,
    hidden: Sequence[int] = (100, 100),
    initialisation: Initialisation = "torch",
    single: bool = False,
) -> nn.Module:
    """Linear layers with ReLU between them. side: of the images, in pixels; points of the plane have 1.

    hidden: outputs of each hidden layer. initialisation: torch's own, or that of Glorot & Bengio 2010 with biases of
    zero. single: one output, whose sign decides between two classes. FieldError if an argument is out of its range.
    """
    if not isinstance(hidden, list | tuple) or not all(
        isinstance(width, int) and 1 <= width <= WIDEST for width in hidden
    ):
        raise FieldError("hidden", f"be a list of numbers from 1 to {WIDEST:,}", hidden)
    if len(hidden) > MOST_LAYERS:
        raise FieldError("hidden", f"have at most {MOST_LAYERS} layers", len(hidden))
    if initialisation not in ("torch", "glorot_uniform", "glorot_normal"):
        raise FieldError("initialisation", "be torch, glorot_uniform or glorot_normal", initialisation)
    if single and classes != 2:
        raise FieldError("single", f"be false for {classes} classes: one output decides between two", single)
    sizes = [channels * side**2, *hidden]
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in zip(sizes, sizes[1:], strict=False):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    layers.append(nn.Linear(sizes[-1], 1 if single else classes))
    for layer in layers:
        if isinstance(layer, nn.Linear) and initialisation != "torch":
            draw = nn.init.xavier_uniform_ if initialisation == "glorot_uniform" else nn.init.xavier_normal_
            draw(layer.weight)
            nn.init.zeros_(layer.bias)
    return nn.Sequential(*layers, AgainstZero()) if single else nn.Sequential(*layers)
