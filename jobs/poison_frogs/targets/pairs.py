"""The targets of pairs of classes, with their bases."""

import torch
from torch import Tensor
from torch.nn import functional

from jobs.common.data.classes import class_index
from jobs.common.data.images.base import ImageSet
from jobs.poison_frogs.params import Params
from jobs.poison_frogs.targets.selection import Candidates, Target, nearest, select
from service.run import Run


def check_pairs(params: Params, test: ImageSet) -> None:
    """InputError if no network could make targets of these pairs: select of images of which all fit."""
    count = len(test)
    logits = functional.one_hot(test.labels, len(test.classes)).float()
    split = Candidates(test.classes, test.labels, torch.ones(count, 1), logits, torch.ones(count))
    for pair in params.pairs:
        select(split, pair, params.targets, params.bases, params.poisons[-1], 0)


def select_pairs(
    params: Params, test: ImageSet, test_features: Tensor, logits: Tensor, features: Tensor, run: Run
) -> list[Target]:
    """The targets of all pairs of a spec.

    test_features: (n, D) of the test split. logits: (n, outputs) of the clean network or head. features: (m, D) of the
    training images.
    """
    names = {name for pair in params.pairs for name in (pair.target, pair.base)}
    named = torch.isin(test.labels, torch.tensor([class_index(test.classes, name) for name in names]))
    neighbours = torch.full((len(test.labels),), torch.nan)
    neighbours[named] = nearest(test_features[named], features)
    split = Candidates(test.classes, test.labels, test_features, logits, neighbours)
    targets = []
    for pair in params.pairs:
        seed = run.seed_for("pair", pair.target, pair.base)
        targets += select(split, pair, params.targets, params.bases, params.poisons[-1], seed)
    return targets
