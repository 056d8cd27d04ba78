"""HopSkipJump: the exact distance of linear models, labels alone, its budget, targets, and where it cannot begin."""

import pytest
import torch
from torch import Tensor

from jobs.common.attacks import Ball, HopSkipJump, Norm
from tests.jobs.common.attacks.linear import linear
from tests.jobs.common.attacks.networks import predictions, random_images, small_net


def labels_alone(model: torch.nn.Module) -> torch.nn.Module:
    """The same predictions; the logits tell nothing else."""

    class Labels(torch.nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            logits = model(images)
            return 5.0 * torch.nn.functional.one_hot(logits.argmax(1), logits.shape[1]) - 2.0

    return Labels().eval()


@pytest.mark.parametrize(("norm", "tolerance"), [("L2", 1.1), ("Linf", 1.25)])
def test_the_distance_to_a_plane(norm: Norm, tolerance: float) -> None:
    """Two classes, and images so far inside of the box that it does not matter: |w.x + b| over the dual norm of w."""
    weights = torch.randn(2, 36, generator=torch.Generator().manual_seed(0))
    images = 0.5 + (random_images(8, 1, 6, 6) - 0.5) * 0.2
    biases = -(weights @ torch.full((36,), 0.5))
    model = linear(weights, biases)
    labels = predictions(model, images)
    with torch.no_grad():
        gaps = (model(images)[:, 0] - model(images)[:, 1]).abs()
    difference = weights[0] - weights[1]
    exact = gaps / torch.linalg.vector_norm(difference, ord=2 if norm == "L2" else 1)
    found = HopSkipJump(queries=3000).run(labels_alone(model), images, labels, Ball(norm, 0.9))
    ratios = found.minimum_distances / exact
    assert found.successful.all() and (ratios >= 1 - 1e-4).all()
    assert ratios.median() < tolerance and not found.gradients.any()
    assert torch.equal(found.distances, found.minimum_distances), "what comes out is the nearest, not the first"
    less = HopSkipJump(queries=300).run(labels_alone(model), images, labels, Ball(norm, 0.9))
    assert less.minimum_distances.median() > found.minimum_distances.median(), "more queries bring it nearer"


@pytest.mark.parametrize("queries", [1, 17, 150, 333])
def test_the_budget_is_kept(queries: int) -> None:
    model, images = small_net(gain=5), random_images(5, 1, 12, 12)
    found = HopSkipJump(queries=queries).run(model, images, predictions(model, images), Ball("L2", 0.1))
    assert (found.queries <= queries + 1).all()
    if queries > 100:
        assert (found.queries == queries + 1).all()


@pytest.mark.parametrize("norm", ["L2", "Linf"])
def test_targets_begin_at_other_images_of_the_batch(norm: Norm) -> None:
    model, images = small_net(gain=5), random_images(30, 1, 12, 12)
    labels = predictions(model, images)
    targets = labels.roll(1)
    chosen = labels != targets
    images, labels, targets = images[chosen], labels[chosen], targets[chosen]
    found = HopSkipJump(queries=400, starts=1).run(model, images, labels, Ball(norm, 1.0), targets=targets)
    reached = predictions(model, found.adversarials) == targets
    assert torch.equal(reached, found.successful) and found.minimum_distances.isfinite().all()


def test_without_a_start_nothing_is_attacked() -> None:
    """A model that knows one class: neither random pixels nor other images are at the goal, and that is told."""
    images = random_images(4, 1, 6, 6)
    found = HopSkipJump(queries=50, starts=3).run(
        lambda points: torch.tensor([[2.0, 0.0]]).expand(len(points), 2),
        images,
        torch.zeros(4, dtype=torch.int64),
        Ball("L2", 0.5),
    )
    assert not found.successful.any() and found.queries.tolist() == [4] * 4
    assert "did not attack 4 of 4 samples" in found.warnings[0]
