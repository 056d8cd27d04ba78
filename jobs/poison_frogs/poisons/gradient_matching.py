"""Gradient matching: poisons whose training gradient points where the target's adversarial gradient does.

    loss = 1 - cos(grad_theta L(target, wanted class), sum over poisons of grad_theta L(x_j + d_j, y_j))

over all parameters theta of a network that stays as it is. A batch of poisons is all that is ever in memory, and the
cosine is that of all of them: a first pass adds up their gradients to G, and as the loss depends on the poisons through
G alone, a second pass differentiates <grad of a batch, dloss/dG> by the images of that batch. Both passes can be shared
out: `training_gradient` over some poisons adds up, `pull_back` needs the common dloss/dG. (The released code takes the
cosine within each batch where there is more than one.) Source: Geiping et al. 2021 ("Witches' Brew"), and its code.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from jobs.common.attacks.projections import project_linf
from jobs.common.params import StudyParams
from service.errors import InputError

LOOK_EVERY = 25  # steps after which it is looked whether all was finite: looking waits for a GPU
DECAYS = (2.667, 1.6, 1.142)  # steps // these: where the rate is divided by ten; 93, 156 and 218 of 250


class MatchingParams(StudyParams):
    """How poisons are brewed."""

    steps: int = Field(250, ge=1, le=100_000, description="steps of Adam on the signs of the gradient")
    restarts: int = Field(8, ge=1, le=1000, description="random starts, of which the lowest loss is kept")
    learning_rate: float = Field(
        0.1, gt=0, le=10, description="of Adam, in pixels normalised as the network's are; shared among its networks"
    )
    epsilon: float = Field(16 / 255, gt=0, le=1, description="largest change of a pixel from 0 to 1")
    batch: int = Field(
        512, ge=1, le=1_000_000, description="poisons in memory at a time; changes no result but the draws of dropout"
    )
    shift: float = Field(8, ge=0, le=1024, description="pixels that images are shifted by at most, anew at each step")
    flip: bool = Field(True, description="mirror each image left to right with probability one half at each step")

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        return float(self.learning_rate * 0.1 ** sum(step >= int(self.steps // part) for part in DECAYS))


@dataclass(frozen=True)
class Brewed:
    """Poisons of one target."""

    images: Tensor
    """(poisons, channels, height, width)"""
    loss: float
    """1 - cosine at these images, without augmentation: in [0, 2]"""
    losses: tuple[float, ...]
    """of each restart; NaN where it stopped being finite"""


@dataclass(frozen=True)
class Augmentation:
    """How each image of a step is moved. shifts: (batch, 2), pixels down and to the right. flips: bool (batch,)."""

    shifts: Tensor
    flips: Tensor

    @classmethod
    def draw(cls, images: Tensor, params: MatchingParams, generator: torch.Generator) -> "Augmentation":
        """generator: on the CPU."""
        shifts = (2 * torch.rand(len(images), 2, generator=generator, dtype=torch.float64) - 1) * params.shift
        flips = (torch.rand(len(images), generator=generator) < 0.5) & params.flip
        return cls(shifts.to(images), flips.to(images.device))

    def __getitem__(self, rows: slice) -> "Augmentation":
        return Augmentation(self.shifts[rows], self.flips[rows])

    def apply(self, images: Tensor) -> Tensor:
        """Mirror and shift, with black coming in and bilinear interpolation between pixels; can be differentiated."""
        height, width = images.shape[2:]
        moves = torch.zeros(len(images), 2, 3, dtype=images.dtype, device=images.device)
        moves[:, 0, 0] = torch.where(self.flips, -1.0, 1.0)
        moves[:, 1, 1] = 1
        # a grid runs from -1 to 1, so that a pixel is 2 / (side - 1); what moves right is looked up further left
        moves[:, 0, 2] = -moves[:, 0, 0] * self.shifts[:, 1] * 2 / max(width - 1, 1)
        moves[:, 1, 2] = -self.shifts[:, 0] * 2 / max(height - 1, 1)
        grid = functional.affine_grid(moves, list(images.shape), align_corners=True)
        return functional.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=True)


def brew(
    bases: Tensor,
    labels: Tensor,
    targets: Tensor,
    wanted: Tensor,
    networks: Sequence[nn.Module],
    params: MatchingParams,
    seed: Callable[[int], int],
    deviations: Tensor | None = None,
) -> Brewed:
    """Craft the poisons of one target, or of several that shall fall together; of the restarts the best is kept.

    bases: (poisons, channels, height, width) in [0, 1]. labels: int64 (poisons,), their true classes. targets: of the
    same form. wanted: int64 (targets,), the classes that they shall be taken for. networks: images in [0, 1] -> logits;
    batch norm must not be in training mode, dropout may be on. With several networks the loss is the mean of theirs.
    seed: of a restart, counted from 0. deviations: (channels,), the standard deviations by which the networks normalise
    pixels; the learning rate is in their units. None: 1.

    InputError if shapes do not fit, values are outside [0, 1], batch norm is in training mode, the gradient of a target
    is zero, or no restart stays finite.
    """
    aims = [target_gradient(network, targets, wanted) for network in networks]
    tries = [
        brew_once(bases, labels, aims, networks, params, seed(restart), deviations)
        for restart in range(params.restarts)
    ]
    best = min(tries, key=lambda one: (math.isnan(one.loss), one.loss))
    if math.isnan(best.loss):
        raise InputError("a restart of gradient matching must stay finite; none does", hint="a lower learning_rate may")
    return Brewed(best.images, best.loss, tuple(one.loss for one in tries))


def brew_once(
    bases: Tensor,
    labels: Tensor,
    aims: Sequence[Sequence[Tensor]],
    networks: Sequence[nn.Module],
    params: MatchingParams,
    seed: int,
    deviations: Tensor | None = None,
) -> Brewed:
    """One start. aims: `target_gradient` of each network. The rest is as in `brew`."""
    _check(bases, labels, networks, aims)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(bases.shape, generator=generator).to(bases) * params.epsilon
    images = project_linf(bases + noise, bases, params.epsilon)
    units = bases.new_ones(bases.shape[1]) if deviations is None else deviations.to(bases)
    first, second = torch.zeros_like(images), torch.zeros_like(images)
    failed = torch.zeros((), dtype=torch.bool, device=images.device)
    for step in range(params.steps):
        augmentation = Augmentation.draw(images, params, generator)
        draw = int(torch.randint(2**62, (), generator=generator))
        loss, gradient = matching_gradient(images, labels, aims, networks, params.batch, augmentation, draw)
        failed = failed | loss.isnan() | ~torch.isfinite(gradient).all()
        if step % LOOK_EVERY == LOOK_EVERY - 1 and bool(failed):
            break
        sign = gradient.sign()
        first.mul_(0.9).add_(sign, alpha=0.1)
        second.mul_(0.999).addcmul_(sign, sign, value=0.001)
        moved = first / (1 - 0.9 ** (step + 1)) / ((second / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8)
        pace = params.rate(step) / len(networks)
        moved = project_linf(images - pace * units.view(-1, 1, 1) * moved, bases, params.epsilon)
        images = torch.where(failed, images, moved)  # they stay where they were when something was not finite
    if bool(failed):
        return Brewed(images, math.nan, (math.nan,))
    loss, _ = matching_gradient(images, labels, aims, networks, params.batch, seed=seed, differentiate=False)
    last = float(loss)
    return Brewed(images, last, (last,))


def matching_gradient(
    images: Tensor,
    labels: Tensor,
    aims: Sequence[Sequence[Tensor]],
    networks: Sequence[nn.Module],
    batch: int,
    augmentation: Augmentation | None = None,
    seed: int = 0,
    differentiate: bool = True,
) -> tuple[Tensor, Tensor]:
    """1 - cosine, the mean over networks, a scalar, and its gradient by the images (zeros unless asked for).

    seed: of dropout, the same in both passes.
    """
    gradient, total = torch.zeros_like(images), torch.zeros((), dtype=torch.float64, device=images.device)
    with torch.random.fork_rng(devices=_cuda(images)):
        for network, aim in zip(networks, aims, strict=True):
            if differentiate and len(images) <= batch:
                loss, own = _in_one_pass(network, images, labels, aim, augmentation, seed)
            else:
                loss, own = _in_two_passes(network, images, labels, aim, augmentation, seed, batch, differentiate)
            total = total + loss.double() / len(networks)
            gradient += own / len(networks)
    return total, gradient


def _in_one_pass(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    aim: Sequence[Tensor],
    augmentation: Augmentation | None,
    seed: int,
) -> tuple[Tensor, Tensor]:
    """All poisons in memory at a time: the graph of their gradient is built once."""
    images = images.detach().requires_grad_()
    torch.manual_seed(seed)
    gradient = _gradient(network, images, labels, augmentation, True)
    loss, pull = cosine_loss([part.detach() for part in gradient], aim)
    return loss, torch.autograd.grad(_dot(gradient, pull), images)[0]


def _in_two_passes(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    aim: Sequence[Tensor],
    augmentation: Augmentation | None,
    seed: int,
    batch: int,
    differentiate: bool,
) -> tuple[Tensor, Tensor]:
    gradient, summed = torch.zeros_like(images), [torch.zeros_like(part) for part in aim]
    parts = [slice(first, first + batch) for first in range(0, len(images), batch)]
    for part in parts:
        torch.manual_seed(seed + part.start)
        part_of_gradient = training_gradient(network, images[part], labels[part], augmentation and augmentation[part])
        summed = [whole + share for whole, share in zip(summed, part_of_gradient, strict=True)]
    loss, pull = cosine_loss(summed, aim)
    for part in parts if differentiate else []:
        torch.manual_seed(seed + part.start)
        moved = augmentation and augmentation[part]
        gradient[part] = pull_back(network, images[part], labels[part], pull, moved)
    return loss, gradient


def target_gradient(network: nn.Module, targets: Tensor, wanted: Tensor, seed: int = 0) -> list[Tensor]:
    """The gradient by all parameters that takes the targets towards the wanted classes: their mean cross entropy.

    seed: of dropout. InputError if it is zero or not finite: there is nothing to match.
    """
    _check_frozen(network)
    with torch.random.fork_rng(devices=_cuda(targets)):
        torch.manual_seed(seed)
        gradient = [part / len(targets) for part in training_gradient(network, targets, wanted)]
    norm = float(_dot(gradient, gradient)) ** 0.5
    if not 0 < norm < float("inf"):
        raise InputError(
            f"the norm of the gradient of the target must be finite and above 0, to be matched; it is {norm}"
        )
    return gradient


def training_gradient(
    network: nn.Module, images: Tensor, labels: Tensor, augmentation: Augmentation | None = None
) -> list[Tensor]:
    """The gradient of the summed cross entropy by all parameters. Adds up over parts of a set."""
    return [part.detach() for part in _gradient(network, images.detach(), labels, augmentation, False)]


def pull_back(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    pull: Sequence[Tensor],
    augmentation: Augmentation | None = None,
) -> Tensor:
    """The gradient by images of <their training gradient, pull>. pull: dloss/dG, one tensor for each parameter."""
    images = images.detach().requires_grad_()
    gradient = _gradient(network, images, labels, augmentation, True)
    return torch.autograd.grad(_dot(gradient, pull), images)[0]


def cosine_loss(gradient: Sequence[Tensor], aim: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """1 - cos(gradient, aim), a scalar, and its derivative by the gradient. It is NaN where the gradient is zero."""
    product, square, aim_square = _dot(gradient, aim), _dot(gradient, gradient), _dot(aim, aim)
    norms = (square * aim_square).sqrt()
    cosine = product / norms
    return 1 - cosine, [cosine / square * g - t / norms for g, t in zip(gradient, aim, strict=True)]


def _gradient(
    network: nn.Module, images: Tensor, labels: Tensor, augmentation: Augmentation | None, differentiable: bool
) -> tuple[Tensor, ...]:
    """By all parameters, whether or not they are trained now; nothing is left behind in the network."""
    moved = images if augmentation is None else augmentation.apply(images)
    weights = {name: weight.detach().requires_grad_() for name, weight in network.named_parameters()}
    loss = functional.cross_entropy(functional_call(network, weights, (moved,)), labels, reduction="sum")
    return torch.autograd.grad(loss, list(weights.values()), create_graph=differentiable, materialize_grads=True)


def _cuda(images: Tensor) -> list[torch.device]:
    """The devices whose random stream is to be left where it is, beside the CPU's."""
    return [images.device] if images.device.type == "cuda" else []


def _dot(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    return torch.stack([(a * b).sum() for a, b in zip(first, second, strict=True)]).sum()


def _check(bases: Tensor, labels: Tensor, networks: Sequence[nn.Module], aims: Sequence[Sequence[Tensor]]) -> None:
    if bases.ndim != 4 or not bases.numel() or labels.shape != bases.shape[:1]:
        raise InputError(f"labels must be ({len(bases)},), one for each base; their shape is {tuple(labels.shape)}")
    if not bool(((bases >= 0) & (bases <= 1)).all()):
        raise InputError(f"bases must be in [0, 1]; they are in [{float(bases.min()):g}, {float(bases.max()):g}]")
    if not networks or len(networks) != len(aims):
        raise InputError(
            f"target gradients must be as many as networks, at least 1: {len(networks)}; they are {len(aims)}"
        )
    for network in networks:
        _check_frozen(network)


def _check_frozen(network: nn.Module) -> None:
    for name, module in network.named_modules():
        if isinstance(module, _BatchNorm) and module.training:
            raise InputError(
                f"batch norm {name!r} must be in evaluation mode; it is in training mode", "network.eval()"
            )
