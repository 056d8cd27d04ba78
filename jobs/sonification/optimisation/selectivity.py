"""Whether a sound excites its own feature more than others of the layer."""

import torch
from torch import Tensor

from jobs.sonification.optimisation.objectives import LayerObjective, Objective


def scores_of_all(objective: Objective, activations: Tensor) -> Tensor:
    """The objective of every feature for every sound: (rows, features); of a whole layer (rows, 1), as it has no other.

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
