"""Whether a sound excites its own feature more than others of the layer: all of them, and a few that are drawn."""

from collections.abc import Sequence

import torch
from torch import Tensor

from jobs.common.data.batches import permutation
from jobs.sonification.optimisation.objectives import LayerObjective, Objective

DRAWN = 50  # other features of the layer, or all where it has fewer


def scores_of_all(objective: Objective, activations: Tensor) -> Tensor:
    """The objective of every feature for every sound: (rows, features); of a whole layer (rows, 1).

    activations: (rows, features, frames).
    """
    rows, features = activations.shape[:2]
    if isinstance(objective, LayerObjective):
        features = 1
    return torch.stack(
        [
            objective.scores(activations, torch.full((rows,), feature, device=activations.device))
            for feature in range(features)
        ],
        1,
    )


def places(scores: Tensor, own: Tensor) -> Tensor:
    """The place of each sound's own feature among all of the layer, from 1: int64 (rows,).

    scores: (rows, features). own: int64 (rows,).
    """
    return 1 + (scores > scores.gather(1, own[:, None])).sum(1)


def scores_of_drawn(scores: Tensor, own: Tensor, seeds: Sequence[int]) -> Tensor:
    """Those of features that are drawn among all but the own one: (rows, DRAWN), or of all others if these are fewer.

    scores: (rows, features). own: int64 (rows,). seeds: one for each row.
    """
    others = scores.shape[1] - 1
    drawn = torch.stack([permutation(others, seed)[:DRAWN] for seed in seeds]).to(scores.device)  # (rows, drawn)
    return scores.gather(1, drawn + (drawn >= own[:, None]))
