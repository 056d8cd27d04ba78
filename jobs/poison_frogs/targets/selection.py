"""Which test images are targets, and which images they are to be taken for: the bases, from which poisons are made.

Both come from the test split, as in the paper: neither a target nor a base is among the images that victims learn from.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from jobs.common.data.batches import permutation
from jobs.common.data.classes import class_index
from jobs.common.params import ONCE, StudyParams
from service.errors import FieldError, InputError


class PairParams(StudyParams):
    """The class of the targets, and the class that they are to be taken for."""

    target: str = Field(min_length=1, description="class of the targets, by name or number")
    base: str = Field(min_length=1, description="class that they are to be taken for, by name or number")
    targets: int | None = Field(None, ge=1, description="targets of this pair; none: as `targets.count` says")


class TargetParams(StudyParams):
    """Which images of the target class."""

    rule: Literal["random", "outlier"] = Field(
        "random", description="in a random order, or those first whose own class the clean network is least sure of"
    )
    count: int | None = Field(None, ge=1, description="targets of each pair; none: all")
    only_correct: bool = Field(True, description="leave out what the clean network misclassifies already")
    indices: Annotated[tuple[int, ...], ONCE] = Field(
        (), description="these images of the test split, instead of a rule"
    )


class BaseParams(StudyParams):
    """Which images of the base class, for each target."""

    rule: Literal["nearest", "random", "same", "single"] = Field(
        "nearest",
        description="nearest to the target in features; in a random order, for each target another; in one random "
        "order, the same for all targets; or the nearest alone, for all poisons of the target",
    )
    preferred: Annotated[tuple[int, ...], ONCE] = Field(
        (), description="images of the test split to be tried before the others"
    )


@dataclass(frozen=True)
class Candidates:
    """What targets and bases are selected from: all of the test split, an image a row."""

    classes: tuple[str, ...]
    labels: Tensor
    """int64 (n,)"""
    features: Tensor
    """(n, D)"""
    logits: Tensor
    """(n, outputs) of the clean network or head; a class that it does not know is -inf"""
    neighbours: Tensor
    """(n,) distance of its features to the nearest training image; NaN where it was not computed"""


@dataclass(frozen=True)
class Target:
    """One image that is to be taken for another class, and the bases of its poisons in their order."""

    index: int
    true_class: int
    base_class: int
    confidence: float
    """of the clean network in its own class"""
    margin: float
    """logit of its own class minus the largest other: below 0 if it is misclassified already"""
    neighbour: float
    """distance of its features to those of the nearest training image"""
    bases: tuple[int, ...]
    """one image, of which all poisons are made, or as many as there are"""
    group: int = 0
    """which of the training sets it belongs to, if there are several"""

    def base(self, rank: int) -> int:
        """What a poison is made of. Beyond the last base it is the last again: such a poison is not used."""
        return self.bases[min(rank, len(self.bases) - 1)]


def select(
    split: Candidates, pair: PairParams, targets: TargetParams, bases: BaseParams, most: int, seed: int
) -> list[Target]:
    """The targets of a pair, each with `most` bases or more. InputError, a sentence, if there are not enough.

    seed: of what is random.
    """
    true_class, base_class = (class_index(split.classes, name) for name in (pair.target, pair.base))
    chosen = _targets(split, true_class, pair.targets or targets.count, targets, seed)
    candidates = _bases(split, base_class, bases.preferred)
    if len(candidates) < most and bases.rule != "single":
        available = f"{len(candidates)}, the test images of {pair.base!r} that are no copies of training images"
        raise FieldError("poisons", f"be at most {available}", most)
    if not len(candidates):
        raise InputError(f"bases: the test split has no image of {pair.base!r}")
    margins, confidence = class_margins(split.logits, true_class)
    order = permutation(len(candidates), seed)
    selected = []
    for index in chosen.tolist():
        match bases.rule:
            case "nearest" | "single":
                distances = _distances(split.features[index : index + 1], split.features[candidates])[0]
                ordered = candidates[distances.argsort(stable=True)]
            case "same":
                ordered = candidates[order]
            case "random":
                ordered = candidates[permutation(len(candidates), seed + index)]
        first = [each for each in bases.preferred if int(split.labels[each]) == base_class]
        ordered_ids = [*first, *(each for each in ordered.tolist() if each not in first)]
        if bases.rule == "single":
            ordered_ids = ordered_ids[:1]
        sure, margin, neighbour = (float(each[index]) for each in (confidence, margins, split.neighbours))
        selected.append(Target(index, true_class, base_class, sure, margin, neighbour, tuple(ordered_ids)))
    return selected


def logits_of(head: Callable[[Tensor], Tensor], features: Tensor, task: Sequence[int], classes: int) -> Tensor:
    """The logits (n, classes) of a head that tells the classes of a task apart; -inf for the others."""
    logits = torch.full((len(features), classes), -torch.inf)
    logits[:, list(task)] = head(features)
    return logits


def _targets(split: Candidates, true_class: int, count: int | None, params: TargetParams, seed: int) -> Tensor:
    """int64 (targets,)."""
    name = split.classes[true_class]
    if params.indices:
        for index in params.indices:
            if index < 0 or index >= len(split.labels):
                raise FieldError(
                    "targets.indices", f"be 0 to {len(split.labels) - 1}, the images of the test split", index
                )
        mine = torch.tensor(
            [index for index in params.indices if int(split.labels[index]) == true_class], dtype=torch.int64
        )
        if not len(mine):
            raise InputError(f"targets.indices: none of them is of the class {name!r}")
    else:
        mine = (split.labels == true_class).nonzero().flatten()
    if not len(mine):
        raise InputError(f"targets: the test split has no image of {name!r}")
    # at a distance of exactly 0 it is a copy of a training image, and nothing could be learnt from its fate
    fit = (split.neighbours[mine] != 0) & split.features[mine].any(1)
    margins, confidence = class_margins(split.logits, true_class)
    if params.only_correct:
        fit &= margins[mine] > 0
    fitting = mine[fit]
    if not len(fitting) or (count is not None and count > len(fitting)):
        others = "copies of training images, have dead features"
        if params.only_correct:
            others += " or are misclassified"
        raise FieldError(
            "targets.count",
            f"be 1 to {len(fitting)}, the images of {name!r} that fit: of {len(mine)} the others are {others}",
            count or len(mine),
        )
    if params.indices:
        return fitting
    if params.rule == "outlier":
        return fitting[confidence[fitting].argsort(stable=True)][:count]
    return fitting[permutation(len(fitting), seed)][:count]


def _bases(split: Candidates, base_class: int, preferred: tuple[int, ...]) -> Tensor:
    """The images that may be bases, int64 (k,)."""
    for index in preferred:
        if not 0 <= index < len(split.labels):
            raise FieldError("bases.preferred", f"be 0 to {len(split.labels) - 1}, the images of the test split", index)
    fit = (split.labels == base_class) & (split.neighbours != 0)
    return fit.nonzero().flatten()


def nearest(features: Tensor, others: Tensor) -> Tensor:
    """The distance (n,) of each feature (n, D) to the nearest of the others (m, D): exactly 0 for a copy."""
    return torch.cat([_distances(some, others).amin(1) for some in torch.split(features, 256)])


def _distances(features: Tensor, others: Tensor) -> Tensor:
    """(n, m). Without the detour over scalar products, which loses what is near."""
    return torch.cdist(features, others, compute_mode="donot_use_mm_for_euclid_dist")


def class_margins(logits: Tensor, label: int) -> tuple[Tensor, Tensor]:
    """Of every image: logit of the class minus the largest other, and the probability of the class."""
    others = logits.clone()
    others[:, label] = -torch.inf
    return logits[:, label] - others.amax(1), logits.softmax(1)[:, label]
