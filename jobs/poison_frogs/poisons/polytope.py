"""Poisons that enclose the target in feature space: bullseye polytope, convex polytope, and the baseline of both.

The k poisons of a target are crafted together, against any number of networks. With phi the features of a network,
cut at one layer or at several, and t the target:

    bullseye_polytope           mean over networks, layers   |1/k sum_j phi(x_j) - phi(t)| / |phi(t)|
    convex_polytope             mean over networks, layers   1/2 |sum_j c_j phi(x_j) - phi(t)|^2 / |phi(t)|^2
    feature_collision_ensemble  mean over networks, layers   sum_j |phi(x_j) - phi(t)|^2 / |phi(t)|^2

The c of each network and layer are the best on the simplex at each step. Adam moves the images, which are clipped to
epsilon around their bases and to [0, 1]. Sets of different targets do not touch each other, so that any number of them
is crafted in one batch. Sources: Aghakhani et al. 2021 ("Bullseye Polytope") and its code, which cuts at several layers
with a norm over channels for each position; Zhu et al. 2019 ("Transferable clean-label poisoning"), Eq. 2 to 4.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from jobs.common.attacks.projections import project_linf
from jobs.common.params import StudyParams
from jobs.poison_frogs.poisons.simplex import nearest_combination
from service.errors import InputError

Features = Callable[[Tensor], Tensor | Sequence[Tensor]]
"""images (batch, channels, height, width) in [0, 1] -> one layer, or several: each (batch, features, ...)"""


class PolytopeParams(StudyParams):
    """How the poisons of a target are crafted together."""

    objective: Literal["bullseye_polytope", "convex_polytope", "feature_collision_ensemble"] = Field(
        "bullseye_polytope", description="what the poisons of a target shall be to it in feature space"
    )
    steps: int = Field(800, ge=1, le=1_000_000, description="steps of Adam; convex polytope was published with 4,000")
    learning_rate: float = Field(0.04, gt=0, le=1, description="of Adam, in pixels from 0 to 1")
    epsilon: float = Field(0.1, gt=0, le=1, description="largest change of a pixel from 0 to 1")
    draws: int = Field(1, ge=1, le=100, description="passes whose features are averaged, for networks with dropout on")


@dataclass(frozen=True)
class Crafted:
    """Poisons of several targets."""

    images: Tensor
    """(sets, k, channels, height, width)"""
    losses: Tensor
    """(sets,), the objective at these images"""
    steps: Tensor
    """int64 (sets,), steps taken: fewer than asked for where a gradient was not finite, before which the set stopped"""
    coefficients: tuple[tuple[Tensor, ...], ...]
    """of each network, and within it of each layer: (sets, k), the best ones on the simplex; convex polytope alone"""


def craft(
    bases: Tensor,
    targets: Tensor,
    networks: Sequence[Features],
    params: PolytopeParams,
    *,
    starts: Tensor | None = None,
    seed: int = 0,
) -> Crafted:
    """Craft the poisons of several targets at once.

    bases: (sets, k, channels, height, width) in [0, 1], k of them for each target. targets: (sets, views, channels,
    height, width): the features of several views are averaged. starts: where the images begin, such as watermarked
    bases, shaped like the bases; they are clipped to epsilon first. seed: of dropout, where a network draws it. The
    features of the targets are drawn once, at the start. The result of a set does not depend on the others, up to the
    order in which numbers are added, unless dropout is drawn.

    InputError if shapes do not fit, values are outside [0, 1], or a network sees nothing in a target (features all 0).
    """
    _check(bases, targets, networks, starts)
    cuda = [bases.device] if bases.device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.manual_seed(seed)
        aims = [_aim(network, targets, params.draws, number) for number, network in enumerate(networks)]
        return _Search(bases, aims, networks, params).run(bases if starts is None else starts)


class _Search:
    """The state of all sets. Those whose gradient is not finite leave; the rest go on without them."""

    def __init__(
        self, bases: Tensor, aims: list[list[Tensor]], networks: Sequence[Features], params: PolytopeParams
    ) -> None:
        self.bases, self.aims, self.networks, self.params = bases, aims, networks, params
        k = bases.shape[1]
        uniform = bases.new_full(bases.shape[:2], 1 / k)
        self.coefficients = [[uniform for _ in layers] for layers in aims]

    def run(self, starts: Tensor) -> Crafted:
        params = self.params
        images = project_linf(starts, self.bases, params.epsilon)
        done = torch.full((len(images),), params.steps, device=images.device)
        rows = torch.arange(len(images), device=images.device)
        first, second = torch.zeros_like(images), torch.zeros_like(images)
        for step in range(params.steps):
            losses, gradient = self._descent(images[rows], rows)
            finite = torch.isfinite(losses) & torch.isfinite(gradient).flatten(1).all(1)
            if not bool(finite.all()):
                done[rows[~finite]] = step
                rows, gradient = rows[finite], gradient[finite]
            if not len(rows):
                break
            first[rows] = 0.9 * first[rows] + 0.1 * gradient
            second[rows] = 0.999 * second[rows] + 0.001 * gradient.square()
            moved = first[rows] / (1 - 0.9 ** (step + 1))
            moved = moved / ((second[rows] / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8)
            images[rows] = project_linf(images[rows] - params.learning_rate * moved, self.bases[rows], params.epsilon)
        everyone = torch.arange(len(images), device=images.device)
        with torch.no_grad():
            losses = torch.stack([self._loss(n, images, everyone) for n in range(len(self.networks))]).mean(0)
        convex = params.objective == "convex_polytope"
        coefficients = tuple(tuple(layers) for layers in self.coefficients) if convex else ()
        return Crafted(images, losses, done, coefficients)

    def _descent(self, images: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The objective of some sets, (sets,), and its gradient by their images; one network's graph at a time."""
        images = images.detach().requires_grad_()
        losses, gradient = torch.zeros(len(images), dtype=images.dtype, device=images.device), torch.zeros_like(images)
        for number in range(len(self.networks)):
            loss = self._loss(number, images, rows)
            gradient += torch.autograd.grad(loss.sum(), images)[0] / len(self.networks)
            losses += loss.detach() / len(self.networks)
        return losses, gradient

    def _loss(self, number: int, images: Tensor, rows: Tensor) -> Tensor:
        """The objective in one network. images: (sets, k, ...). rows: which sets these are. Returns (sets,)."""
        sets, k = images.shape[:2]
        layers = _layers(self.networks[number], images.flatten(0, 1), self.params.draws)
        losses: list[Tensor] = []
        for depth, (layer, all_aims) in enumerate(zip(layers, self.aims[number], strict=True)):
            poisons, aim = layer.reshape(sets, k, *layer.shape[1:]), all_aims[rows]
            if self.params.objective == "bullseye_polytope":
                losses.append(bullseye(poisons, aim))
            elif self.params.objective == "feature_collision_ensemble":
                losses.append(collisions(poisons, aim))
            else:
                loss, solved = convex(poisons, aim, self.coefficients[number][depth][rows])
                self.coefficients[number][depth] = self.coefficients[number][depth].index_copy(0, rows, solved)
                losses.append(loss)
        return torch.stack(losses).mean(0)


def bullseye(poisons: Tensor, aim: Tensor) -> Tensor:
    """The distance of the centre of the poisons from the target, over the norm of the target's features.

    poisons: (sets, k, features, ...). aim: (sets, features, ...). Norms are over the features (channels); positions, if
    there are any, are averaged but for those where the target has no features at all. Returns (sets,).
    """
    norms: Tensor = torch.linalg.vector_norm(aim, dim=1)
    nonzero = norms > 0
    distances: Tensor = torch.linalg.vector_norm(poisons.mean(1) - aim, dim=1)
    shares: Tensor = torch.where(nonzero, distances / torch.where(nonzero, norms, 1.0), 0.0).reshape(len(aim), -1)
    positions: Tensor = nonzero.reshape(len(aim), -1).sum(1)
    return shares.sum(1) / positions


def convex(poisons: Tensor, aim: Tensor, start: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Half the squared distance of the target from the polytope of the poisons, over its squared norm.

    Shapes as in `bullseye`, all positions one vector. Returns the losses (sets,), which are to be differentiated by the
    poisons, and the coefficients (sets, k), which are constants there.
    """
    flat, target = poisons.flatten(2), aim.flatten(1)
    usable = torch.isfinite(flat).flatten(1).all(1)
    coefficients = nearest_combination(torch.where(usable[:, None, None], flat, 0.0).detach(), target, start)
    residual = target - torch.einsum("sk,skd->sd", coefficients, flat)
    return 0.5 * residual.square().sum(1) / target.square().sum(1), coefficients


def collisions(poisons: Tensor, aim: Tensor) -> Tensor:
    """The squared distances of all poisons from the target, added up, over its squared norm: Zhu et al. 2019, Eq. 2.

    Shapes as in `convex`. Returns (sets,).
    """
    flat, target = poisons.flatten(2), aim.flatten(1)
    return (flat - target[:, None]).square().sum((1, 2)) / target.square().sum(1)


def _layers(network: Features, images: Tensor, draws: int) -> list[Tensor]:
    """The features of each layer, averaged over passes."""
    passes = [[layers] if isinstance(layers := network(images), Tensor) else list(layers) for _ in range(draws)]
    return [sum(layer[1:], layer[0]) / draws for layer in zip(*passes, strict=True)]


def _aim(network: Features, targets: Tensor, draws: int, number: int) -> list[Tensor]:
    """What the features of each layer shall become: (sets, features, ...), the mean over views."""
    with torch.no_grad():
        layers = [
            layer.reshape(*targets.shape[:2], *layer.shape[1:]).mean(1)
            for layer in _layers(network, targets.flatten(0, 1), draws)
        ]
    for depth, layer in enumerate(layers):
        norms = layer.flatten(1).norm(dim=1)
        for index in (~(torch.isfinite(norms) & (norms > 0))).nonzero().flatten().tolist():
            raise InputError(
                f"the norm of the features of target {index} must be finite and above 0, to measure distances by; "
                f"in layer {depth} of network {number} it is {float(norms[index])}"
            )
    return layers


def _check(bases: Tensor, targets: Tensor, networks: Sequence[Features], starts: Tensor | None) -> None:
    if not networks:
        raise InputError("networks must be at least 1, to craft against; they are 0")
    shapes = f"they are {tuple(bases.shape)} and {tuple(targets.shape)}"
    if bases.ndim != 5 or targets.ndim != 5 or len(bases) != len(targets) or bases.shape[2:] != targets.shape[2:]:
        raise InputError(
            f"bases and targets must be (sets, k, channels, height, width) and (sets, views, ...); {shapes}"
        )
    if not (bases.numel() and targets.numel()):
        raise InputError(f"bases and targets must have at least one set, one base and one view; {shapes}")
    if starts is not None and starts.shape != bases.shape:
        raise InputError(f"starts must be {tuple(bases.shape)}, as the bases; they are {tuple(starts.shape)}")
    for name, images in (("bases", bases), ("targets", targets), ("starts", bases if starts is None else starts)):
        if not bool(((images >= 0) & (images <= 1)).all()):
            raise InputError(
                f"{name} must be in [0, 1]; they are in [{float(images.min()):g}, {float(images.max()):g}]"
            )
