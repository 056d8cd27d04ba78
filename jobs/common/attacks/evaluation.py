"""AutoAttack over a whole data set: component after component, in batches, each over what still stands; resumable.

    evaluation = evaluate(model, images, labels, Ball("Linf", 8 / 255), keep=lambda progress: ...)
    evaluation.progress.accuracies      # {"clean": 0.91, "apgd_ce": 0.52, ..., "square": 0.49}

Stopped early, the last accuracy is an upper bound of the robust accuracy.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from jobs.common.attacks import checks
from jobs.common.attacks.autoattack import FEW, AutoAttack, Version
from jobs.common.attacks.ball import Ball, Norm
from jobs.common.attacks.base import Attack, Goal, Model, Search
from jobs.common.attacks.prepared import prepared
from service.errors import InputError

CLEAN = "clean"


class Progress(BaseModel):
    """How far an evaluation is, as plain data: `model_dump_json`, `model_validate_json`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    version: Version
    square_queries: int
    norm: Norm
    epsilon: float
    batch: int
    seed: int
    data: str
    """digest of images and labels"""
    finished: tuple[str, ...] = ()
    """the parts that are done: the clean images, then component after component"""
    batches: int = 0
    """of the next part that are done"""
    broken_by: tuple[str | None, ...]
    """for each sample the part that broke it, "clean" if it was misclassified from the start; none: it stands"""
    queries: tuple[int, ...]
    """for each sample, forward passes"""
    gradients: tuple[int, ...]
    """for each sample, backward passes"""
    warnings: tuple[str, ...] = ()

    @property
    def robust(self) -> tuple[bool, ...]:
        """Which samples stand so far."""
        return tuple(by is None for by in self.broken_by)

    @property
    def accuracies(self) -> dict[str, float]:
        """The share of samples that stand after each part that is finished."""
        standing, shares = len(self.broken_by), {}
        for part in self.finished:
            standing -= self.broken_by.count(part)
            shares[part] = standing / len(self.broken_by)
        return shares


@dataclass(frozen=True)
class Evaluation:
    """What came out. After a resume, a sample that was broken before it has its clean image for adversarial."""

    progress: Progress
    adversarials: Tensor
    """(samples, channels, height, width): what broke a sample, or the image of one that stands"""


def evaluate(
    model: Model,
    images: Tensor,
    labels: Tensor,
    ball: Ball,
    attack: AutoAttack | None = None,
    *,
    seed: int = 0,
    batch: int = 250,
    progress: Progress | None = None,
    keep: Callable[[Progress], None] = lambda progress: None,
) -> Evaluation:
    """AutoAttack on all samples.

    model, images, labels: as for `Attack.run`, of a whole data set. batch: samples attacked at a time. keep: is given
    the progress after each batch of each part, and after each part. progress: what `keep` was given last, to go on
    from there with the same model. InputError: what `Attack.run` raises, and progress of another evaluation.
    """
    attack = AutoAttack() if attack is None else attack
    checks.check_ball(attack.kind, attack.norms, ball, images)
    checks.check_batch(images, labels, None)
    checks.check_evaluation_mode(model)
    if batch < 1:
        raise InputError(f"batch is {batch}, but must be at least 1")
    classes = Search(model, images[:1], Goal(labels[:1]), ball).clean_logits.shape[1]
    fresh = _begin(attack, images, labels, ball, seed, batch)
    if progress is None:
        doubts = attack.doubts(model, images[:batch], labels[:batch], classes)
        progress = fresh.model_copy(update={"warnings": tuple(doubts)})
    else:
        _check_same(progress, fresh)

    model = prepared(model, images[:FEW])
    adversarials = images.clone()
    parts: dict[str, Attack | None] = {CLEAN: None, **attack.components(ball.norm, classes)}
    for part, component in parts.items():
        if part in progress.finished:
            continue
        standing = [row for row, by in enumerate(progress.broken_by) if by in (None, part)]  # when the part began
        chunks = [standing[first : first + batch] for first in range(0, len(standing), batch)]
        for chunk in chunks[progress.batches :]:
            rows = torch.tensor(chunk, device=images.device)
            search = Search(model, images[rows], Goal(labels[rows]), ball)
            if component is not None:
                component.attack(search, torch.Generator(images.device).manual_seed(seed))
            adversarials[rows[search.broken]] = search.adversarials[search.broken]
            progress = _after_batch(progress, part, chunk, search)
            keep(progress)
        progress = _after_part(progress, part)
        keep(progress)
    return Evaluation(progress, adversarials)


def _begin(attack: AutoAttack, images: Tensor, labels: Tensor, ball: Ball, seed: int, batch: int) -> Progress:
    digest = hashlib.sha256(repr((images.shape, images.dtype)).encode())
    for tensor in (images, labels):
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    nothing = (0,) * len(images)
    return Progress(
        version=attack.version,
        square_queries=attack.queries,
        norm=ball.norm,
        epsilon=ball.epsilon,
        batch=batch,
        seed=seed,
        data=digest.hexdigest(),
        broken_by=(None,) * len(images),
        queries=nothing,
        gradients=nothing,
    )


def _check_same(progress: Progress, fresh: Progress) -> None:
    """The progress is that of this evaluation."""
    for name in ("version", "square_queries", "norm", "epsilon", "batch", "seed", "data"):
        was, wanted = getattr(progress, name), getattr(fresh, name)
        if was != wanted:
            raise InputError(f"the progress to go on from was made with {name} {was}, but {name} is {wanted}")
    if not len(progress.broken_by) == len(progress.queries) == len(progress.gradients) == len(fresh.broken_by):
        raise InputError(f"the progress to go on from is damaged: it is not one of {len(fresh.broken_by)} samples")


def _after_batch(progress: Progress, part: str, rows: list[int], search: Search) -> Progress:
    broken_by, queries, gradients = (list(each) for each in (progress.broken_by, progress.queries, progress.gradients))
    books = zip(rows, search.broken.tolist(), search.queries.tolist(), search.gradients.tolist(), strict=True)
    for row, broken, more_queries, more_gradients in books:
        broken_by[row] = part if broken else None
        queries[row] += more_queries
        gradients[row] += more_gradients
    return progress.model_copy(
        update={
            "batches": progress.batches + 1,
            "broken_by": tuple(broken_by),
            "queries": tuple(queries),
            "gradients": tuple(gradients),
            "warnings": _distinct(progress.warnings, search.warnings),
        }
    )


def _after_part(progress: Progress, part: str) -> Progress:
    progress = progress.model_copy(update={"finished": (*progress.finished, part), "batches": 0})
    if part != "square":
        return progress
    *_, before, after = progress.accuracies.values()
    return progress.model_copy(
        update={"warnings": _distinct(progress.warnings, checks.square_after_gradients(before, after))}
    )


def _distinct(warnings: tuple[str, ...], more: list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*warnings, *more)))
