"""What an attack says it costs at most is what a sample costs on which nothing succeeds."""

import pytest
import torch
from torch import Tensor

from jobs.common.attacks import (
    APGD,
    DDN,
    FAB,
    FGSM,
    FMN,
    PGD,
    APGDTargeted,
    Attack,
    AutoAttack,
    Ball,
    CarliniWagner,
    Norm,
    SigmaZero,
    SparseRS,
    Square,
)
from jobs.common.attacks.nearest import prunings
from jobs.common.attacks.shrinking import STRAIGHT
from tests.jobs.common.attacks.networks import random_images

CLEAN = 1  # pass over the clean images
CASES: list[tuple[Attack, Norm]] = [
    (FGSM(), "Linf"),
    (PGD(steps=7, restarts=3), "L2"),
    (CarliniWagner(steps=6, binary_search_steps=2), "L2"),
    (APGD(steps=9, restarts=2, passes=3), "Linf"),
    (PGD(steps=7, passes=2), "L2"),
    (PGD(steps=7, restarts=2), "L0"),
    (APGD(steps=1, large_epsilon=True), "L1"),
    (APGD(steps=24, large_epsilon=True, restarts=2), "L1"),
    (APGDTargeted(steps=5, targets=2), "Linf"),
    (APGDTargeted(steps=5, targets=20), "Linf"),
    (FAB(steps=4, restarts=2, targets=2), "Linf"),
    (FAB(steps=4, restarts=2, targets=0), "L2"),
    (Square(queries=30, restarts=2), "L2"),
    (DDN(steps=8), "L2"),
    (FMN(steps=8), "Linf"),
    (FMN(steps=1), "L0"),
    (SigmaZero(steps=20), "L0"),
    (SparseRS(queries=30, restarts=2), "L0"),
]


def firm(images: Tensor) -> Tensor:
    """Logits of 5 classes that hang on the image, but never enough to change which is the largest."""
    slopes = torch.linspace(-1, 1, 5 * images[0].numel()).view(5, -1).sin()
    return images.flatten(1) @ slopes.T + torch.tensor([1e4, 0.0, 0.0, 0.0, 0.0])


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize(("attack", "norm"), CASES, ids=lambda value: getattr(value, "kind", value))
def test_a_robust_sample_costs_all_of_it(attack: Attack, norm: Norm, targeted: bool) -> None:
    labels = torch.zeros(3, dtype=torch.int64)
    targets = torch.tensor([1, 2, 3]) if targeted else None
    ball = Ball(norm, 1 if norm == "L0" else 0.02)
    result = attack.run(firm, random_images(3, 1, 6, 6), labels, ball, targets=targets)
    cost = attack.most(norm, 5, targeted)
    assert not result.successful.any()
    if isinstance(attack, CarliniWagner):  # whose descents end by themselves
        assert (result.queries <= cost.forward + CLEAN).all() and (result.gradients <= cost.backward).all()
    elif isinstance(attack, APGD) and attack.large_epsilon:  # the last of three climbs may have no steps left
        assert (cost.forward + CLEAN - result.queries).max() <= 2 and (result.gradients <= cost.backward).all()
    elif isinstance(attack, DDN | FMN | SigmaZero):  # whose last passes are for what is found, which is nothing here
        assert (result.queries <= cost.forward + CLEAN).all() and (result.gradients <= cost.backward).all()
        last = max(prunings(cost.backward), int(STRAIGHT * cost.backward))
        assert (result.gradients >= cost.backward - last).all()
    else:
        assert result.queries.tolist() == [cost.forward + CLEAN] * 3
        assert result.gradients.tolist() == [cost.backward] * 3


@pytest.mark.parametrize(
    ("version", "norm"), [("standard", "Linf"), ("standard", "L1"), ("plus", "L2"), ("rand", "L2"), ("fast", "Linf")]
)
def test_the_ensemble_costs_its_parts(version: str, norm: Norm) -> None:
    attack = AutoAttack.model_validate({"version": version, "queries": 20})
    cost = attack.cost(norm, 10, False)
    parts = [part.cost(norm, 10, False) for part in attack.components(norm, 10).values()]
    doubts = 1 if version == "rand" else 66  # so many passes tell what may be wrong with the model
    nearness = len(parts) if version == "fast" else 0  # a pass before each
    assert cost == (sum(part.forward for part in parts) + doubts + nearness, sum(part.backward for part in parts))


def test_every_pass_of_the_ensemble_is_counted() -> None:
    """Also those that are about the model as a whole."""
    passes = 0

    def counted(images: Tensor) -> Tensor:
        nonlocal passes
        passes += len(images)
        return firm(images)

    attack = AutoAttack(queries=20)
    labels = torch.zeros(1, dtype=torch.int64)
    result = attack.run(counted, random_images(1, 1, 6, 6), labels, Ball("Linf", 0.02))
    cost = attack.cost("Linf", 5, False)
    assert not result.successful.any() and passes == cost.forward + CLEAN
