"""The search for poisons as cells: features of parts of a set, batches of crafts.

    features    a part of the images                          of one network and one set
    crafts      a batch of (target, base) pairs               of one network and one recipe, whatever is done with them
    sets        the poisons of one target, made together      of one or several networks and one recipe

What comes out of a cell depends on nothing but these, not on which worker computes it, and nothing is crafted twice: a
search over the number of poisons takes the first so many of each target's. Poisons that are made together depend on
their number, so they are made anew for each.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from jobs.common.classifiers.normalisation import PerChannel
from jobs.common.datasets.base import ImageSet
from jobs.common.params import StudyParams
from jobs.common.training import device
from jobs.poison_frogs import gradient_matching, polytope
from jobs.poison_frogs.collision import Code, CodeEndToEnd, Paper, Recipe, craft, quantised
from jobs.poison_frogs.features import BATCH, Features
from jobs.poison_frogs.gradient_matching import MatchingParams
from jobs.poison_frogs.polytope import PolytopeParams
from jobs.poison_frogs.selection import Target
from service.errors import RunFailedError
from service.run import Run

PART = 1000  # images in a cell of features


class Polytope(PolytopeParams):
    """Poisons that enclose the target: bullseye or convex polytope, or the ensemble form of feature collision."""

    kind: Literal["polytope"] = Field("polytope", description="poisons of a target that enclose it in feature space")
    watermark: float = Field(0.0, ge=0, lt=1, description="share of the target that is blended into the bases first")


class Matching(MatchingParams):
    """Poisons whose training gradient is that which takes the target to the wrong class: Witches' Brew."""

    kind: Literal["gradient_matching"] = Field("gradient_matching", description="poisons of a matching gradient")


AttackParams = Annotated[Paper | Code | CodeEndToEnd | Polytope | Matching, Field(discriminator="kind")]


class RetryParams(StudyParams):
    """What to do about a poison that did not come near enough."""

    above: float = Field(gt=0, description="collision above which the target's next base is tried")
    tries: int = Field(10, ge=2, le=1000, description="bases for a poison at most; the best try is kept")


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
    return Features(network.to(device()), images.images(torch.arange(1)).to(device()), layers)


def features_of_part(rows: list[int], subject: Subject) -> dict[str, Tensor]:
    """A cell: the features and logits of these images."""
    features, logits = subject.features.of(subject.images.images, torch.tensor(rows))
    return {"features": features, "logits": logits}


def features_of(subject: Subject, rows: Tensor, run: Run, name: str) -> tuple[Tensor, Tensor]:
    """Features (n, D) and logits (n, outputs) of images of the set. RunFailedError if a cell fails."""
    parts = run.map(features_of_part, [part.tolist() for part in torch.split(rows, PART)], subject, name=name)
    if any(part is None for part in parts):
        raise RunFailedError("the features of some images failed, without which nothing can be crafted")
    return torch.cat([part["features"] for part in parts]), torch.cat([part["logits"] for part in parts])


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
            **{"target": self.target, "base": self.base},
            **{"collision": self.collision, "before_quantisation": self.unquantised},
            **{"iterations": self.iterations, "stopped": self.stopped, "L2": self.change, "Linf": self.largest},
        }


Key = tuple[int, int, int]  # place of the target, size of the set (0: made by itself), rank in it


@dataclass(frozen=True)
class Crafts:
    """All poisons. What failed is absent."""

    made: dict[Key, Craft] = field(default_factory=dict)
    together: bool = False
    """whether the poisons of a target were made together"""

    def keys(self, target: int, count: int) -> list[Key] | None:
        """The poisons that a victim with `count` of them learns; None if one is missing."""
        keys = [(target, count if self.together else 0, rank) for rank in range(count)]
        return keys if all(key in self.made for key in keys) else None

    def of(self, target: int, count: int) -> list[Craft]:
        """The same, [] if one is missing."""
        return [self.made[key] for key in self.keys(target, count) or []]


@dataclass(frozen=True)
class Crafting:
    """What all crafts share. subject: with the test split. others: further networks that are crafted against."""

    subject: Subject
    attack: Recipe | Polytope | Matching
    others: tuple[nn.Module, ...] = ()
    grey: bool = False
    """whether the others alone are"""

    @property
    def networks(self) -> list[nn.Module]:
        return [*([] if self.grey else [self.subject.network]), *self.others]


def craft_pairs(cell: list[list[Any]], crafting: Crafting) -> dict[str, Any]:
    """A cell: target, base, the target's distance to its neighbour and a seed of noise, for each pair of a batch."""
    recipe = crafting.attack
    assert isinstance(recipe, Recipe)
    places, bases_at, near, seeds = zip(*cell, strict=True)
    targets, bases, wanted = _images(crafting.subject, places, bases_at)
    if recipe.feature_noise:
        streams = [torch.Generator().manual_seed(seed) for seed in seeds]
        noise = torch.stack([torch.randn(wanted.shape[1], generator=stream) for stream in streams])
        wanted = wanted + recipe.feature_noise * noise.to(wanted)
    neighbours = torch.tensor(near, dtype=wanted.dtype, device=wanted.device)
    made = craft(crafting.subject.features, bases, targets, wanted, recipe, neighbours)
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
    """A cell: the poisons of one target, made together. cell: target, bases, aim and seed."""
    attack, subject, count = crafting.attack, crafting.subject, len(cell["bases"])
    targets, bases, wanted = _images(subject, [cell["target"]], cell["bases"])
    if isinstance(attack, Polytope):
        cut = [features_of_network(each, subject.images, subject.layers) for each in crafting.networks]
        for each in cut if attack.draws > 1 else ():
            for layer in each.network.modules():
                layer.train(isinstance(layer, nn.modules.dropout._DropoutNd))
        starts = attack.watermark * targets + (1 - attack.watermark) * bases
        networks = [each.blocks for each in cut]
        found = polytope.craft(bases[None], targets[None], networks, attack, starts=starts[None], seed=cell["seed"])
        images, steps, reason = found.images[0], int(found.steps), "iterations"
        reason = reason if steps == attack.steps else "not finite"
    else:
        assert isinstance(attack, Matching)
        nets = [each.to(device()).eval().requires_grad_(True) for each in crafting.networks]
        aims = torch.full((count,), cell["aim"], device=device())
        seed = partial(_restart_seed, cell["seed"])
        brewed = gradient_matching.brew(
            bases, aims, targets, aims[:1], nets, attack, seed, _deviations(subject.network)
        )
        images, steps, reason = brewed.images, attack.steps * attack.restarts, "iterations"
    shades = quantised(images.detach(), "round")
    extract = features_of_network(subject.network, subject.images, subject.layers)
    with torch.no_grad():
        before, features = extract(images), extract(shades)
    return {
        "image": (255 * shades).round().to(torch.uint8).cpu(),
        "features": features.cpu(),
        "collision": (features - wanted).norm(dim=1).cpu(),
        "unquantised": (before - wanted).norm(dim=1).cpu(),
        "iterations": torch.full((count,), steps),
        "stopped": [reason] * count,
        **_changes(shades, bases),
    }


def batches(targets: int, most: int, size: int) -> Iterator[list[Key]]:
    """All poisons of so many targets in batches: the first of each target, then the second of each, and so on.

    In this order what is crafted for few poisons is the beginning of what is crafted for many.
    """
    ranks = max(1, size // targets)
    for first in range(0, most, ranks):
        block = range(first, min(first + ranks, most))
        keys = [(target, 0, rank) for rank in block for target in range(targets)]
        yield from (keys[start : start + size] for start in range(0, len(keys), size))


def crafts_of(
    crafting: Crafting, targets: Sequence[Target], counts: Sequence[int], size: int, retry: RetryParams | None, run: Run
) -> Crafts:
    """The poisons that victims with any of these `counts` of them learn.

    size: pairs in a batch. retry: whether those that did not come near enough are tried with the target's next base.
    """
    if not isinstance(crafting.attack, Recipe):
        return _sets(crafting, targets, counts, run)
    made: dict[Key, Craft] = {}
    todo = list(batches(len(targets), counts[-1], size))
    spare = [iter(target.bases[counts[-1] :]) for target in targets]
    base_of = {key: targets[key[0]].bases[key[2]] for batch in todo for key in batch}
    for _ in range(1 if retry is None else retry.tries):
        cells: list[list[list[Any]]] = [
            [
                [targets[at].index, base_of[at, 0, rank], targets[at].neighbour, run.seed_for("noise", rank)]
                for at, _, rank in batch
            ]
            for batch in todo
        ]
        for batch, cell, result in zip(todo, cells, run.map(craft_pairs, cells, crafting, name="crafts"), strict=True):
            tried = _crafts(result, [(pair[0], pair[1]) for pair in cell])
            for key, one in zip(batch, tried, strict=False):
                if key not in made or one.collision < made[key].collision:
                    made[key] = one
        far = [key for batch in todo for key in batch if retry and key in made and made[key].collision > retry.above]
        base_of = {key: base for key in far if (base := next(spare[key[0]], None)) is not None}
        todo = [list(base_of)[start : start + size] for start in range(0, len(base_of), size)]
        if not todo:
            break
    return Crafts(made)


def _sets(crafting: Crafting, targets: Sequence[Target], counts: Sequence[int], run: Run) -> Crafts:
    places = [(at, count) for count in counts for at in range(len(targets))]
    cells: list[dict[str, Any]] = [
        {
            **{"target": targets[at].index, "aim": targets[at].aim, "bases": list(targets[at].bases[:count])},
            "seed": run.seed_for("set", targets[at].index, count),
        }
        for at, count in places
    ]
    made: dict[Key, Craft] = {}
    for (at, count), cell, result in zip(
        places, cells, run.map(craft_set, cells, crafting, name="crafts"), strict=True
    ):
        crafts = _crafts(result, [(cell["target"], base) for base in cell["bases"]])
        made |= {(at, count, rank): one for rank, one in enumerate(crafts)}
    return Crafts(made, together=True)


def _crafts(result: Mapping[str, Any] | None, pairs: Sequence[tuple[int, int]]) -> list[Craft]:
    """The rows of a cell's result; none if it failed."""
    if result is None:
        return []
    return [
        Craft(*pair, **{name: _plain(values[row]) for name, values in result.items()}) for row, pair in enumerate(pairs)
    ]


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, Tensor) and value.dim() == 0 else value


def _images(subject: Subject, targets: Sequence[int], bases: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Targets, bases, and the features of the targets."""
    images, at = subject.images, device()
    shown, others = (images.images(torch.tensor(list(each))).to(at) for each in (targets, bases))
    with torch.no_grad():
        return shown, others, torch.cat([subject.features(some) for some in torch.split(shown, BATCH)])


def _changes(images: Tensor, bases: Tensor) -> dict[str, Tensor]:
    away = (images - bases).flatten(1)
    return {"change": away.norm(dim=1).cpu(), "largest": away.abs().amax(1).cpu()}


def _restart_seed(seed: int, restart: int) -> int:
    return (seed + restart) % 2**63


def _deviations(network: nn.Module) -> Tensor | None:
    """What the network divides pixels by."""
    normalise = getattr(network, "normalise", None)
    return normalise.std.flatten() if isinstance(normalise, PerChannel) else None
