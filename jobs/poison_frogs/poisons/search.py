"""The search for poisons as cells: features of parts of a set, batches of crafts.

    features    a part of the images                          of one network and one set
    crafts      a batch of (target, base) pairs               of one network and one recipe, whatever is done with them
    sets        the poisons of one target, made together      of one or several networks and one recipe

What comes out of a cell depends on nothing but these, not on which worker computes it, and nothing is crafted twice: a
search over the number of poisons takes the first ones of each target's, also if the numbers are those of a sweep,
whose trials have their crafts in common. Poisons that are made together depend on their number, so they are made anew
for each; and so are those of bases that are tried again.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from jobs.poison_frogs.poisons.crafting import Craft, Crafting, Subject, craft_pairs, craft_set, features_of_part
from jobs.poison_frogs.poisons.recipes import FeatureCollision, RetryParams
from jobs.poison_frogs.targets.selection import Target
from service.errors import RunFailedError
from service.run import Run

PART = 1000  # images in a cell of features
ENOUGH = 32  # pairs in a batch, which more would hardly make faster
SPARE = 4  # a batch has a rank for so many before it: what is crafted in vain is at most a quarter


def features_of(subject: Subject, rows: Tensor, run: Run, name: str) -> tuple[Tensor, Tensor]:
    """Features (n, D) and logits (n, outputs) of images of the set. RunFailedError if a cell fails."""
    cells = [part.tolist() for part in torch.split(rows, PART)]
    parts = run.map_across_trials(features_of_part, cells, subject, name=name)
    if any(part is None for part in parts):
        raise RunFailedError("the features of some images failed, without which nothing can be crafted")
    return torch.cat([part["features"] for part in parts]), torch.cat([part["logits"] for part in parts])


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


def batches(targets: int, most: int, size: int) -> Iterator[list[Key]]:
    """`most` poisons or a few more of each target, in batches: the first of each, the second of each, ….

    With few targets a batch has several ranks, the more the later. What is crafted for few poisons is the beginning of
    what is crafted for many, batch by batch: a poison does not depend on how many others there are.
    """
    rank = 0
    while rank < most:
        ranks = max(1, min(size // targets, ENOUGH // targets, rank // SPARE))
        keys = [(target, 0, each) for each in range(rank, rank + ranks) for target in range(targets)]
        yield from (keys[start : start + size] for start in range(0, len(keys), size))
        rank += ranks


def crafts_of(
    crafting: Crafting, targets: Sequence[Target], counts: Sequence[int], size: int, retry: RetryParams | None, run: Run
) -> Crafts:
    """The poisons that victims with any of these `counts` of them learn.

    size: pairs in a batch. retry: whether those that did not come near enough are tried with the target's next base.
    """
    if not isinstance(crafting.attack, FeatureCollision):
        return _sets(crafting, targets, counts, run)
    made: dict[Key, Craft] = {}
    todo = list(batches(len(targets), counts[-1], size))
    spare = [iter(target.bases[counts[-1] :]) for target in targets]
    base_of = {key: targets[key[0]].base(key[2]) for batch in todo for key in batch}
    for _ in range(1 if retry is None else retry.tries):
        cells: list[list[list[Any]]] = [
            [
                [targets[at].index, base_of[at, 0, rank], targets[at].neighbour, run.seed_for("noise", rank)]
                for at, _, rank in batch
            ]
            for batch in todo
        ]
        results = run.map_across_trials(craft_pairs, cells, crafting, name="crafts")
        for batch, cell, result in zip(todo, cells, results, strict=True):
            tried = _crafts(result, [(pair[0], pair[1]) for pair in cell])
            for key, one in zip(batch, tried, strict=False):
                if key[2] < counts[-1] and (key not in made or one.collision < made[key].collision):
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
            "target": targets[at].index,
            "label": targets[at].base_class,
            "bases": [targets[at].base(rank) for rank in range(count)],
            "seed": run.seed_for("set", targets[at].index, count),
        }
        for at, count in places
    ]
    made: dict[Key, Craft] = {}
    for (at, count), cell, result in zip(
        places, cells, run.map_across_trials(craft_set, cells, crafting, name="crafts"), strict=True
    ):
        crafts = _crafts(result, [(cell["target"], base) for base in cell["bases"]])
        made |= {(at, count, rank): one for rank, one in enumerate(crafts)}
    return Crafts(made, together=True)


def _crafts(result: Mapping[str, Any] | None, pairs: Sequence[tuple[int, int]]) -> list[Craft]:
    """The rows of a cell's result; none if it failed."""
    if result is None:
        return []
    return [
        Craft(
            target=target,
            base=base,
            image=result["image"][row],
            features=result["features"][row],
            collision=float(result["collision"][row]),
            unquantised=float(result["unquantised"][row]),
            iterations=int(result["iterations"][row]),
            stopped=result["stopped"][row],
            change=float(result["change"][row]),
            largest=float(result["largest"][row]),
        )
        for row, (target, base) in enumerate(pairs)
    ]
