"""Which classes a targeted attack aims at, when the search itself has no target: the likeliest others."""

from collections.abc import Iterator

import torch
from torch import Tensor

from jobs.common.attacks.base import Goal, Search

BATCH = 128
"""rows that are worth a pass of their own; fewer cost nearly as much"""


def groups(search: Search, most: int) -> Iterator[range]:
    """The ranks 2 to most + 1 among the clean logits, of those that there are; one if the search has targets.

    The first comes alone, since it succeeds most often, then as many together as fill a batch with what remains.
    """
    classes = search.clean_logits.shape[1]
    ranks = range(2, 1 + min(most + 1, classes)) if search.goal.targets is None else range(2, 3)
    place, together = 0, 1
    while place < len(ranks):
        yield ranks[place : place + together]
        place += together
        together = max(1, BATCH // max(1, len(search.remaining)))


def aim_at(search: Search, rows: Tensor, rank: int) -> Goal:
    """The class of a rank among the clean logits of each row (1 is the label), or the target that the search has."""
    if search.goal.targets is not None:
        return search.goal[rows]
    labels = search.goal.labels[rows]
    logits = search.clean_logits[rows].scatter(1, labels.unsqueeze(1), torch.inf)  # first, also before its equals
    return Goal(labels, logits.argsort(1)[:, -rank])


def joined(aims: list[Goal]) -> Goal:
    """The goals one after the other. All have targets, or none has."""
    targets = [aim.targets for aim in aims if aim.targets is not None]
    return Goal(torch.cat([aim.labels for aim in aims]), torch.cat(targets) if targets else None)


def first_of_each(rows: Tensor) -> Tensor:
    """The first place of each value: int64 (k,) -> int64 (values,)."""
    ordered, places = rows.sort(stable=True)
    new = torch.ones_like(rows, dtype=torch.bool)
    new[1:] = ordered[1:] != ordered[:-1]
    return places[new]
