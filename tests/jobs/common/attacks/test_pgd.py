"""FGSM and PGD: closed forms on linear models, foolbox's iterates, restarts, targets and the counters."""

from types import ModuleType

import pytest
import torch
from torch import Tensor

from jobs.common.attacks.base import Ball, Goal, Search
from jobs.common.attacks.losses import LOSSES, LossName
from jobs.common.attacks.pgd import FGSM, PGD
from jobs.common.attacks.sparse_rs import SparseRS
from tests.jobs.common.attacks.linear import LinearDigits, least_norms, linear, robust
from tests.jobs.common.attacks.networks import predictions, random_images, small_net


@pytest.mark.parametrize(("norm", "epsilon"), [("Linf", 0.05), ("L2", 0.3), ("L1", 1.5)])
@pytest.mark.parametrize("loss", ["cross_entropy", "margin", "dlr"])
def test_never_below_the_exact_robust_accuracy(norm: str, epsilon: float, loss: LossName, digits: LinearDigits) -> None:
    """And near it: what a linear model's robustness is, is known."""
    certain = digits.robust(norm, epsilon)
    ball = Ball(norm, epsilon)  # type: ignore[arg-type]
    found = PGD(steps=50, restarts=2, loss=loss).run(digits.model, digits.images, digits.labels, ball)
    assert not (found.successful & certain).any(), "no attack succeeds on a robust sample"
    assert (~found.successful & ~certain).float().mean() < {"Linf": 0.01, "L2": 0.02, "L1": 0.06}[norm]
    assert 0.02 < found.successful.float().mean() < 0.98
    successful = found.successful
    assert (predictions(digits.model, found.adversarials)[successful] != digits.labels[successful]).all()


@pytest.mark.parametrize("count", [1, 2, 4])
def test_few_coordinates(count: int, digits: LinearDigits) -> None:
    """Of a linear model the gradient tells nearly every time which coordinates to change; a search at as many passes
    learns that by trial.
    """
    ball = Ball("L0", count)
    certain = least_norms(digits.model, digits.images, digits.labels, "L0") > count
    by_gradient, by_search = (
        attack.run(digits.model, digits.images, digits.labels, ball)
        for attack in (PGD(steps=20, restarts=2, loss="margin"), SparseRS(queries=80))
    )
    assert ball.holds(by_gradient.adversarials, digits.images).all()
    for found in (by_gradient, by_search):
        assert not (found.successful & certain).any(), "no attack succeeds on a robust sample"
    assert (~by_gradient.successful & ~certain).float().mean() < 0.08
    assert by_gradient.successful.sum() > by_search.successful.sum()


def test_of_two_classes_one_step_is_exact() -> None:
    """A linear model of two classes has one direction of ascent: FGSM succeeds exactly where any attack can."""
    weights = torch.randn(2, 36, generator=torch.Generator().manual_seed(0))
    model, images = linear(weights, torch.zeros(2)), random_images(200, 1, 6, 6)
    labels = predictions(model, images)
    found = FGSM().run(model, images, labels, Ball("Linf", 0.1))
    assert found.successful.tolist() == (~robust(model, images, labels, "Linf", 0.1)).tolist()
    assert 20 < found.successful.sum() < 180
    expected = images + 0.1 * (weights[1 - labels] - weights[labels]).sign().view_as(images)
    torch.testing.assert_close(found.adversarials, expected.clamp(0, 1))


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_iterates_of_foolbox(norm: str, foolbox: ModuleType) -> None:
    """From the image itself: the same last iterate where it does not succeed."""
    model, images = small_net(channels=3), random_images(8, 3, 12, 10)
    labels = predictions(model, images)
    epsilon = {"Linf": 1e-3, "L2": 5e-3}[norm]
    attack = {"Linf": foolbox.attacks.LinfPGD, "L2": foolbox.attacks.L2PGD}[norm]
    reference = attack(rel_stepsize=0.3, steps=7, random_start=False)
    _, expected, _ = reference(foolbox.PyTorchModel(model, bounds=(0, 1)), images, labels, epsilons=epsilon)
    found = PGD(steps=7, step_size=0.3, random_start=False).run(model, images, labels, Ball(norm, epsilon))  # type: ignore[arg-type]
    assert (~found.successful).sum() >= 6
    torch.testing.assert_close(found.adversarials[~found.successful], expected[~found.successful], rtol=0, atol=1e-6)


@pytest.mark.parametrize("loss", sorted(LOSSES))
@pytest.mark.parametrize("targeted", [False, True])
def test_losses_grow_towards_the_goal(loss: LossName, targeted: bool) -> None:
    """Against the formulas, written out for one sample."""
    logits = torch.tensor([[2.0, -1.0, 0.5, 3.0, 0.0]])
    goal = Goal(torch.tensor([0]), torch.tensor([2]) if targeted else None)
    expected = {
        ("cross_entropy", False): -torch.log_softmax(logits, 1)[0, 0],
        ("cross_entropy", True): torch.log_softmax(logits, 1)[0, 2],
        ("margin", False): torch.tensor(3.0 - 2.0),
        ("margin", True): torch.tensor(0.5 - 3.0),
        ("dlr", False): torch.tensor(-(2.0 - 3.0) / (3.0 - 0.5)),
        ("dlr", True): torch.tensor(-(2.0 - 0.5) / (3.0 - (0.5 + 0.0) / 2)),
    }[loss, targeted]
    torch.testing.assert_close(LOSSES[loss](logits, goal), expected.view(1))


def test_restarts_only_help(digits: LinearDigits) -> None:
    ball = Ball("Linf", 0.05)
    one, many = (
        PGD(steps=2, step_size=0.2, restarts=restarts).run(digits.model, digits.images, digits.labels, ball)
        for restarts in (1, 8)
    )
    assert (many.successful | ~one.successful).all()
    assert many.successful.sum() > one.successful.sum()
    assert torch.equal(many.adversarials[one.successful], one.adversarials[one.successful])
    assert torch.equal(many.queries[one.successful], one.queries[one.successful])


@pytest.mark.parametrize("attack", [FGSM(), PGD(), PGD(loss="margin"), PGD(loss="dlr")])
def test_targets_are_met(attack: FGSM | PGD) -> None:
    model, images = small_net(gain=20), random_images(20, 1, 12, 12)
    labels = predictions(model, images)
    targets = model(images).detach().topk(2).indices[:, 1]
    found = attack.run(model, images, labels, Ball("Linf", 0.5), targets=targets)
    if attack.kind == "pgd":
        assert found.successful.sum() >= 3
    assert (predictions(model, found.adversarials)[found.successful] == targets[found.successful]).all()
    assert (predictions(model, found.adversarials)[~found.successful] != targets[~found.successful]).all()


def test_the_books_are_exact() -> None:
    """A model that counts what it is asked, sample by sample: each image carries its number in a corner pixel."""
    weights = torch.zeros(2, 36)
    weights[0, 1], weights[1, 1] = -1.0, 1.0
    net = linear(weights, torch.tensor([0.5, -0.5]))  # class 1 from pixel 1 > 0.5 on
    images = torch.zeros(5, 1, 6, 6)
    images[:, 0, 0, 0] = torch.arange(5) / 5
    images[:, 0, 0, 1] = torch.tensor([0.6, 0.45, 0.4, 0.3, 0.0])
    labels = torch.zeros(5, dtype=torch.int64)
    asked = torch.zeros(5, dtype=torch.int64)
    backward = torch.zeros(5, dtype=torch.int64)

    def model(points: Tensor) -> Tensor:
        rows = (points[:, 0, 0, 0] * 5).round().long()
        asked.index_add_(0, rows, torch.ones_like(rows))
        logits = net(points)
        if logits.requires_grad:

            def count(_: Tensor) -> None:
                backward.index_add_(0, rows, torch.ones_like(rows))

            logits.register_hook(count)
        return logits

    # each step moves pixel 1 by 0.1, up to 0.25; the corner pixel has no slope
    attack = PGD(steps=6, step_size=0.4, random_start=False)
    found = attack.run(model, images, labels, Ball("Linf", 0.25))
    assert found.successful.tolist() == [True, True, True, True, False]
    assert found.queries.tolist() == asked.tolist() == [1, 3, 4, 5, 8]
    assert found.gradients.tolist() == backward.tolist() == [0, 2, 3, 4, 6]
    torch.testing.assert_close(found.distances, torch.tensor([0, 0.1, 0.2, 0.25, 0.25]).double())
    torch.testing.assert_close(found.minimum_distances, torch.tensor([0, 0.1, 0.2, 0.25, torch.inf]).double())


def test_samples_do_not_depend_on_their_neighbours(digits: LinearDigits) -> None:
    """Nor on when these leave the batch."""
    images, labels, ball = digits.images[:60], digits.labels[:60], Ball("L2", 0.4)
    attack = PGD(random_start=False)
    together = attack.run(digits.model, images, labels, ball)
    assert 5 < together.successful.sum() < 55
    for row in range(0, 60, 3):
        alone = attack.run(digits.model, images[row : row + 1], labels[row : row + 1], ball)
        assert alone.successful[0] == together.successful[row] and alone.queries[0] == together.queries[row]
        torch.testing.assert_close(alone.adversarials[0], together.adversarials[row], rtol=0, atol=1e-5)


def test_averaged_gradients_of_a_noisy_model() -> None:
    """Several passes: the mean gradient, and all of them counted."""
    net, images = small_net(), random_images(4, 1, 8, 8)
    scales = iter([1.0, 1.0, 2.0, 6.0])

    def model(points: Tensor) -> Tensor:
        return net(points) * next(scales)

    goal = Goal(torch.tensor([1, 2, 3, 4]))
    search = Search(model, images, goal, Ball("Linf", 0.1), passes=3)
    rows = torch.tensor([0, 2])
    logits, losses, gradient = search.gradient(rows, images[rows], LOSSES["margin"])
    points = images[rows].requires_grad_()
    expected = LOSSES["margin"](net(points), goal[rows])
    (slope,) = torch.autograd.grad(expected.sum(), points)
    torch.testing.assert_close(losses, 3 * expected.detach())
    torch.testing.assert_close(gradient, 3 * slope)
    torch.testing.assert_close(logits, 6 * net(images[rows]).detach())
    assert search.queries.tolist() == [4, 1, 4, 1] and search.gradients.tolist() == [3, 0, 3, 0]
