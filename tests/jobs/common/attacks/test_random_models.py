"""Models that answer the same image differently each time: means over passes, and successes that most confirm."""

from typing import Any

import pytest
import torch
from torch import Tensor

from jobs.common.attacks import ATTACKS, Attack, Ball, Goal, Search
from jobs.common.attacks.losses import margin
from tests.jobs.common.attacks.networks import random_images

SHORT: dict[str, dict[str, Any]] = {
    "pgd": {"steps": 4},
    "carlini_wagner": {"steps": 10, "binary_search_steps": 2, "initial_constant": 10.0},
    "apgd": {"steps": 5},
    "apgd_targeted": {"steps": 3, "targets": 2},
    "fab": {"steps": 4, "targets": 2},
    "square": {"queries": 12},
    "hop_skip_jump": {"queries": 60},
    "ddn": {"steps": 5},
    "fmn": {"steps": 5},
    "sigma_zero": {"steps": 5},
    "sparse_rs": {"queries": 12},
}


class Fickle:
    """Four classes, of which the second is drawn with a probability, and else the first. It passes gradients on."""

    def __init__(self, probability: float) -> None:
        self.probability, self.stream, self.answers = probability, torch.Generator().manual_seed(0), 0

    def __call__(self, images: Tensor) -> Tensor:
        self.answers += len(images)
        drawn = torch.rand(len(images), generator=self.stream) < self.probability
        slopes = torch.linspace(-1, 1, 4 * images[0].numel()).view(4, -1).sin()
        votes = 3 * torch.stack([~drawn, drawn, *torch.zeros(2, len(images))], 1).float()
        return images.flatten(1) @ slopes.T * 1e-3 + votes


def norm_of(attack: Attack) -> Any:
    return next(norm for norm in ("L2", *attack.norms) if norm in attack.norms)


@pytest.mark.parametrize("kind", [kind for kind in ATTACKS if kind != "autoattack"])  # which consists of others
def test_a_success_by_chance_is_none(kind: str) -> None:
    """Each answer is the label with probability 0.8: no attack changes that, and without confirmation all say so."""
    images, labels = random_images(6, 1, 6, 6), torch.zeros(6, dtype=torch.int64)
    attack = ATTACKS[kind].model_validate({**SHORT.get(kind, {}), "passes": 3, "confirmations": 25})
    norm = norm_of(attack)
    ball, model = Ball(norm, {"L2": 3.0, "Linf": 0.3}.get(norm, 5.0)), Fickle(0.2)
    result = attack.run(model, images, labels, ball)
    assert not result.successful.any() and result.minimum_distances.isinf().all()
    most = attack.most(norm, 4, targeted=False)
    assert (result.queries <= most.forward + 1).all() and (result.gradients <= most.backward).all()
    assert attack.for_random_models
    if kind != "fgsm":
        once = ATTACKS[kind].model_validate(SHORT.get(kind, {})).run(Fickle(0.5), images, labels, ball)
        assert once.successful.any()


@pytest.mark.parametrize("kind", ["pgd", "square"])
def test_a_likely_success_is_confirmed(kind: str) -> None:
    """A model that gives the label to these very images alone, and another class in nine of ten answers elsewhere."""
    images, labels = random_images(6, 1, 6, 6), torch.zeros(6, dtype=torch.int64)
    fickle = Fickle(0.9)

    def model(points: Tensor) -> Tensor:
        clean = (points[:, None] == images).flatten(2).all(2).any(1)
        return torch.where(clean[:, None], torch.tensor([3.0, 0.0, 0.0, 0.0]) + 0 * fickle(points), fickle(points))

    attack = ATTACKS[kind].model_validate({**SHORT.get(kind, {}), "confirmations": 25})
    assert attack.run(model, images, labels, Ball("Linf", 0.3)).successful.all()


def test_clean_images_are_confirmed_too() -> None:
    """What is misclassified by chance is attacked; what mostly is, is a success at distance 0."""
    images, goal = random_images(200, 1, 4, 4), Goal(torch.zeros(200, dtype=torch.int64))
    ball = Ball("Linf", 0.1)
    assert 10 < Search(Fickle(0.2), images, goal, ball).successful.sum() < 80
    assert not Search(Fickle(0.2), images, goal, ball, confirmations=40).successful.any()
    assert Search(Fickle(0.95), images, goal, ball, confirmations=40).successful.sum() > 170


def test_means_over_passes() -> None:
    """Of logits, losses and gradients of c x, with c drawn anew: the deviation falls with the root of the passes."""
    images, goal = random_images(400, 1, 2, 2) * 0.5 + 0.25, Goal(torch.zeros(400, dtype=torch.int64))
    stream = torch.Generator().manual_seed(0)

    def model(points: Tensor) -> Tensor:
        factors = 1 + 0.5 * torch.randn(len(points), 1, generator=stream)
        first = factors * points.flatten(1).sum(1, keepdim=True)
        return torch.cat([first, torch.zeros_like(first)], 1)

    for passes in (1, 16):
        search = Search(model, images, goal, Ball("Linf", 0.1), passes=passes)
        rows = torch.arange(400)
        _, losses, gradients = search.gradient(rows, images, margin)
        factors = search.logits(rows, images)[:, 0] / images.flatten(1).sum(1)
        for values in (factors, -gradients[:, 0, 0, 0], -losses / images.flatten(1).sum(1)):
            assert abs(float(values.mean()) - 1) < 4 * 0.5 / (400 * passes) ** 0.5
            assert abs(float(values.std()) / (0.5 / passes**0.5) - 1) < 0.2
        assert (search.queries == 1 + 2 * passes).all() and (search.gradients == passes).all()
