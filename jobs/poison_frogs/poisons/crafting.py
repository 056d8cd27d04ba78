"""Poisons as cells: what crafts of one network have in common, and what comes out of a cell of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from jobs.common.data.images.base import ImageSet
from jobs.common.models.classifiers.normalisation import PerChannel
from jobs.poison_frogs.features import BATCH, Features
from jobs.poison_frogs.poisons import gradient_matching, polytope
from jobs.poison_frogs.poisons.collision import craft, quantised
from jobs.poison_frogs.poisons.recipes import FeatureCollision, Matching, Polytope
from service.run import reserved_device


@dataclass(frozen=True)
class Subject:
    """The attacked network and a set of images. layers: whose output is a feature; none: before the last linear."""

    network: nn.Module
    images: ImageSet
    layers: tuple[str, ...] = ()

    @cached_property
    def features(self) -> Features:
        """Made once for each worker."""
        return features_of_network(self.network, self.images, self.layers)


def features_of_network(network: nn.Module, images: ImageSet, layers: Sequence[str]) -> Features:
    """The network cut at its feature layer, on the device where work is done."""
    return Features(network.to(reserved_device()), images.images(torch.arange(1)).to(reserved_device()), layers)


def features_of_part(rows: list[int], subject: Subject) -> dict[str, Tensor]:
    """A cell: the features and logits of these images."""
    features, logits = subject.features.of(subject.images.images, torch.tensor(rows))
    return {"features": features, "logits": logits}


@dataclass(frozen=True)
class Craft:
    """One poison. image: (channels, height, width), uint8 if it was quantised. features: (D,)."""

    target: int
    base: int
    image: Tensor
    features: Tensor
    collision: float
    """distance of these features to the target's"""
    unquantised: float
    """the same before quantisation"""
    iterations: int
    stopped: str
    change: float
    """L2 distance to the base, pixels in [0, 1]"""
    largest: float
    """L-infinity distance"""

    @property
    def pixels(self) -> Tensor:
        """In [0, 1]."""
        return self.image.float() / 255 if self.image.dtype == torch.uint8 else self.image

    def row(self) -> dict[str, Any]:
        """Of the table of poisons."""
        return {
            "target": self.target,
            "base": self.base,
            "collision": self.collision,
            "before_quantisation": self.unquantised,
            "iterations": self.iterations,
            "stopped": self.stopped,
            "L2": self.change,
            "Linf": self.largest,
        }


@dataclass(frozen=True)
class Crafting:
    """What all crafts share. subject: with the images of the targets. others: further networks to craft against."""

    subject: Subject
    attack: FeatureCollision | Polytope | Matching
    others: tuple[nn.Module, ...] = ()
    grey_box: bool = False
    """whether the others alone are"""
    bases: ImageSet | None = None
    """where bases are; none: where targets are"""

    @property
    def networks(self) -> list[nn.Module]:
        return [*([] if self.grey_box else [self.subject.network]), *self.others]


def craft_pairs(cell: list[list[Any]], crafting: Crafting) -> dict[str, Any]:
    """A cell: target, base, the target's distance to its neighbour and a seed of noise, for each pair of a batch."""
    recipe = crafting.attack
    assert isinstance(recipe, FeatureCollision)
    places, bases_at, near, seeds = zip(*cell, strict=True)
    targets, bases, target_features = _images(crafting, places, bases_at)
    if recipe.feature_noise:
        streams = [torch.Generator().manual_seed(seed) for seed in seeds]
        noise = torch.stack([torch.randn(target_features.shape[1], generator=stream) for stream in streams])
        target_features = target_features + recipe.feature_noise * noise.to(target_features)
    neighbours = torch.tensor(near, dtype=target_features.dtype, device=target_features.device)
    extract = crafting.subject.features.prepared(bases)
    made = craft(extract, bases, targets, target_features, recipe, neighbours)
    kept = made.images if recipe.quantise == "none" else (255 * made.images).round().to(torch.uint8)
    return {
        "image": kept.cpu(),
        "features": made.features.cpu(),
        "collision": made.collision.cpu(),
        "unquantised": made.unquantised.cpu(),
        "iterations": made.iterations,
        "stopped": made.stopped,
        **_changes(made.images, bases),
    }


def craft_set(cell: dict[str, Any], crafting: Crafting) -> dict[str, Any]:
    """A cell: the poisons of one target, made together. cell: target, bases, label and seed. label: of the bases."""
    attack, subject, count = crafting.attack, crafting.subject, len(cell["bases"])
    targets, bases, target_features = _images(crafting, [cell["target"]], cell["bases"])
    if isinstance(attack, Polytope):
        cut = [features_of_network(each, subject.images, subject.layers) for each in crafting.networks]
        for each in cut if attack.draws > 1 else ():
            for layer in each.network.modules():
                layer.train(isinstance(layer, nn.modules.dropout._DropoutNd))
        starts = attack.watermark * targets + (1 - attack.watermark) * bases
        networks = [each.blocks if attack.draws > 1 else _prepared_blocks(each, bases) for each in cut]
        crafted = polytope.craft(bases[None], targets[None], networks, attack, starts=starts[None], seed=cell["seed"])
        images, steps, reason = crafted.images[0], int(crafted.steps), "iterations"
        reason = reason if steps == attack.steps else "not finite"
    else:
        assert isinstance(attack, Matching)
        nets = [each.to(reserved_device()).eval().requires_grad_(True) for each in crafting.networks]
        labels = torch.full((count,), cell["label"], device=reserved_device())
        seed = partial(_restart_seed, cell["seed"])
        brewed = gradient_matching.brew(
            bases, labels, targets, labels[:1], nets, attack, seed, _deviations(subject.network)
        )
        images, steps, reason = brewed.images, attack.steps * attack.restarts, "iterations"
    shades = quantised(images.detach(), "round")
    extract = features_of_network(subject.network, subject.images, subject.layers)
    with torch.no_grad():
        before, features = extract(images), extract(shades)
    return {
        "image": (255 * shades).round().to(torch.uint8).cpu(),
        "features": features.cpu(),
        "collision": (features - target_features).norm(dim=1).cpu(),
        "unquantised": (before - target_features).norm(dim=1).cpu(),
        "iterations": torch.full((count,), steps),
        "stopped": [reason] * count,
        **_changes(shades, bases),
    }


def _images(crafting: Crafting, targets: Sequence[int], bases: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Targets, bases, and the features of the targets."""
    subject, at = crafting.subject, reserved_device()
    shown = subject.images.images(torch.tensor(list(targets))).to(at)
    others = (crafting.bases or subject.images).images(torch.tensor(list(bases))).to(at)
    with torch.no_grad():
        return shown, others, torch.cat([subject.features(some) for some in torch.split(shown, BATCH)])


def _prepared_blocks(features: Features, images: Tensor) -> Callable[[Tensor], Sequence[Tensor]]:
    """The features of each layer, of a network without random draws."""
    extract = features.prepared(images)
    return lambda some: torch.split(extract(some), features.sizes, dim=1)


def _changes(images: Tensor, bases: Tensor) -> dict[str, Tensor]:
    away = (images - bases).flatten(1)
    return {"change": away.norm(dim=1).cpu(), "largest": away.abs().amax(1).cpu()}


def _restart_seed(seed: int, restart: int) -> int:
    return (seed + restart) % 2**63


def _deviations(network: nn.Module) -> Tensor | None:
    """What the network divides pixels by."""
    normalise = getattr(network, "normalise", None)
    return normalise.std.flatten() if isinstance(normalise, PerChannel) else None
