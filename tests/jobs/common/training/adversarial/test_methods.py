"""Each method against the same thing written down directly, with passes of the network counted from outside."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from jobs.common.attacks import Ball
from jobs.common.training.adversarial.methods.base import Method
from jobs.common.training.adversarial.methods.fgsm_rs import RandomStartStep
from jobs.common.training.adversarial.methods.free import Free, ascend
from jobs.common.training.adversarial.methods.natural import Natural
from jobs.common.training.adversarial.methods.pgd import ProjectedGradient
from jobs.common.training.adversarial.methods.trades import Trades, divergence
from tests.jobs.common.training.adversarial import tiny

LINF, L2 = Ball("Linf", 0.1), Ball("L2", 0.5)


def batch(count: int = 5, seed: int = 3) -> tuple[Tensor, Tensor]:
    stream = torch.Generator().manual_seed(seed)
    return torch.rand(count, 2, 6, 6, generator=stream), torch.randint(0, 3, (count,), generator=stream)


def noise(like: Tensor, size: float = 0.1, seed: int = 5) -> Tensor:
    return size * (2 * torch.rand(like.shape, generator=torch.Generator().manual_seed(seed)) - 1)


def gradients(net: nn.Module) -> list[Tensor]:
    return [parameter.grad.clone() for parameter in net.parameters() if parameter.grad is not None]


def updated(method: Method, net: nn.Module, images: Tensor, labels: Tensor, delta: Tensor, ball: Ball) -> Any:
    return method.update(tiny.objective(net, len(images)), images, labels, delta, ball)


def test_free_is_the_released_codes_step() -> None:
    """delta moves by the sign of the same backward pass that gives the weights' gradients, and is clipped alone."""
    images, labels = batch()
    delta, net = noise(images), tiny.network()
    reference = copy.deepcopy(net).train()
    points = images + delta
    inside = (points >= 0) & (points <= 1)
    assert not inside.all()
    leaf = points.clamp(0, 1).requires_grad_()
    loss = functional.cross_entropy(reference(leaf), labels)
    loss.backward()
    expected = (delta + 0.1 * (leaf.grad * inside).sign()).clamp(-0.1, 0.1)

    outcome = updated(Free(), net, images, labels, delta, LINF)
    torch.testing.assert_close(outcome.delta, expected)
    torch.testing.assert_close(outcome.loss, loss.detach())
    torch.testing.assert_close(gradients(net), gradients(reference))
    assert torch.equal(outcome.delta[~inside], delta[~inside]), "what the clip stopped has no gradient and stays"
    assert ((images + outcome.delta) > 1).any(), "the perturbation is not held within the pixels"
    for name, buffer in net.named_buffers():  # running statistics move at every replay
        torch.testing.assert_close(buffer, reference.get_buffer(name))


def test_a_smaller_batch_uses_the_first_rows() -> None:
    images, labels = batch(3)
    delta = noise(torch.empty(5, 2, 6, 6))
    outcome = updated(Free(), tiny.network(), images, labels, delta, LINF)
    assert torch.equal(outcome.delta[3:], delta[3:])
    assert (outcome.delta[:3] != delta[:3]).any(dim=(1, 2, 3)).all()
    alone = updated(Free(), tiny.network(), images, labels, delta[:3], LINF)
    torch.testing.assert_close(outcome.delta[:3], alone.delta)


def test_projection_keeps_the_perturbed_image_within_the_pixels() -> None:
    images, labels = batch()
    outcome = updated(Free(project=True), tiny.network(), images, labels, noise(images), LINF)
    points = images + outcome.delta
    assert points.min() >= -1e-6 and points.max() <= 1 + 1e-6
    assert outcome.delta.abs().max() <= 0.1 + 1e-6


@pytest.mark.parametrize("step", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("ball", [LINF, L2], ids=str)
def test_ascent_stays_in_the_ball_and_goes_up(ball: Ball, step: float) -> None:
    delta, direction = noise(torch.empty(4, 2, 6, 6), 0.05), noise(torch.empty(4, 2, 6, 6), seed=6)
    direction[0] = 0
    moved = ascend(delta, direction, ball, step)
    assert (ball.norms(moved) <= ball.epsilon + 1e-6).all()
    torch.testing.assert_close(moved[0], delta[0])
    assert (((moved - delta) * direction)[1:].sum((1, 2, 3)) > 0).all()
    if ball.norm == "L2" and step == 0.5:  # by hand
        units = direction[1] / direction[1].norm()
        by_hand = delta[1] + 0.25 * units
        torch.testing.assert_close(moved[1], by_hand * min(1, 0.5 / float(by_hand.norm())))


def test_free_in_l2_does_not_depend_on_the_size_of_the_batch() -> None:
    """The mean over a batch makes gradients smaller; the direction of each row's step stays."""
    images, labels = batch(4)
    net = tiny.network(batch_norm=False)
    whole = updated(Free(), net, images, labels, torch.zeros_like(images), L2).delta
    none = torch.zeros(1, 2, 6, 6)
    rows = [updated(Free(), net, images[[row]], labels[[row]], none, L2).delta for row in range(4)]
    torch.testing.assert_close(whole, torch.cat(rows))


@pytest.mark.parametrize(("policy", "carried"), [("carry", True), ("zero", False), ("random", False)])
def test_what_a_new_minibatch_begins_with(policy: Any, carried: bool) -> None:
    images, _ = batch()
    fresh = Free(delta=policy).fresh(images, LINF, torch.Generator().manual_seed(0))
    assert (fresh is None) == carried
    if policy == "zero":
        assert fresh is not None and not fresh.any()
    if policy == "random":
        assert fresh is not None and 0.09 < fresh.abs().max() <= 0.1 + 1e-6


@pytest.mark.parametrize("ball", [LINF, L2], ids=str)
@pytest.mark.parametrize("crafting", ["train", "eval"])
def test_pgd_is_a_plain_loop(ball: Ball, crafting: Any) -> None:
    images, labels = batch()
    delta, net = noise(images, 0.02), tiny.network()
    reference = copy.deepcopy(net)
    points = (images + delta).clamp(0, 1)
    reference.train(crafting == "train")
    for _ in range(3):
        points.requires_grad_()
        (gradient,) = torch.autograd.grad(functional.cross_entropy(reference(points), labels), points)
        if ball.norm == "Linf":
            moved = points.detach() - images + 0.25 * 0.1 * gradient.sign()
            points = (images + moved.clamp(-0.1, 0.1)).clamp(0, 1)
        else:
            units = gradient / gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
            moved = points.detach() - images + 0.25 * 0.5 * units
            points = (images + moved * (0.5 / moved.flatten(1).norm(dim=1).view(-1, 1, 1, 1)).clamp(max=1)).clamp(0, 1)
    reference.train()
    loss = functional.cross_entropy(reference(points), labels)
    loss.backward()

    outcome = updated(ProjectedGradient(steps=3, crafting=crafting), net, images, labels, delta, ball)
    torch.testing.assert_close(outcome.loss, loss.detach())
    torch.testing.assert_close(gradients(net), gradients(reference))
    for name, buffer in net.named_buffers():
        torch.testing.assert_close(buffer, reference.get_buffer(name), msg=name)


def test_fgsm_rs_is_one_step_of_a_quarter_more_than_epsilon() -> None:
    images, labels = batch()
    method = RandomStartStep()
    fresh = method.fresh(images, LINF, torch.Generator().manual_seed(1))
    assert fresh is not None
    start = (images + fresh).requires_grad_()
    assert start.min() >= 0 and start.max() <= 1 and 0.09 < fresh.abs().max() <= 0.1 + 1e-6
    reference = tiny.network(batch_norm=False)
    (gradient,) = torch.autograd.grad(functional.cross_entropy(reference(start), labels), start)
    points = (images + (fresh + 0.125 * gradient.sign()).clamp(-0.1, 0.1)).clamp(0, 1)
    functional.cross_entropy(reference(points), labels).backward()
    net = tiny.network(batch_norm=False)
    updated(method, net, images, labels, fresh, LINF)
    torch.testing.assert_close(gradients(net), gradients(reference))


def test_trades_is_the_papers_loss() -> None:
    images, labels = batch()
    method = Trades(steps=2, beta=4.0)
    fresh = method.fresh(images, LINF, torch.Generator().manual_seed(1))
    assert fresh is not None and fresh.std() == pytest.approx(1e-3, rel=0.2)
    net, reference = tiny.network(), tiny.network()
    kl = nn.KLDivLoss(reduction="sum")
    points = (images + fresh).clamp(0, 1)
    reference.eval()
    for _ in range(2):
        points.requires_grad_()
        apart = kl(functional.log_softmax(reference(points), 1), functional.softmax(reference(images), 1))
        (gradient,) = torch.autograd.grad(apart, points)
        moved = points.detach() + 0.225 * 0.1 * gradient.sign()
        points = torch.min(torch.max(moved, images - 0.1), images + 0.1).clamp(0, 1)
    reference.train()
    logits = reference(images)
    apart = kl(functional.log_softmax(reference(points), 1), functional.softmax(logits, 1)) / len(images)
    loss = functional.cross_entropy(logits, labels) + 4.0 * apart
    loss.backward()

    outcome = updated(method, net, images, labels, fresh, LINF)
    torch.testing.assert_close(outcome.loss, loss.detach())
    torch.testing.assert_close(gradients(net), gradients(reference))


def test_divergence_by_hand() -> None:
    p, q = torch.tensor([[0.5, 0.5], [0.9, 0.1]]), torch.tensor([[0.25, 0.75], [0.9, 0.1]])
    expected = 0.5 * torch.tensor(2.0).log() + 0.5 * torch.tensor(2 / 3).log()
    torch.testing.assert_close(divergence(p.log(), q.log()), expected)


@pytest.mark.parametrize(
    ("method", "evaluations"),
    [(Natural(), 1), (Free(), 1), (ProjectedGradient(steps=3), 4), (RandomStartStep(), 2), (Trades(steps=3), 5)],
    ids=lambda each: getattr(each, "label", ""),
)
def test_gradient_evaluations_are_counted_as_they_are_made(method: Method, evaluations: int) -> None:
    """Against hooks: each evaluation is a pass forward with a graph and a pass back through the last layer."""
    images, labels = batch()
    net = tiny.network()
    passes = {"forward": 0, "backward": 0}

    def forward(*_: Any) -> None:
        passes["forward"] += torch.is_grad_enabled()

    def backward(*_: Any) -> None:
        passes["backward"] += 1

    net[-1].register_forward_hook(forward)  # type: ignore[index]
    net[-1].register_full_backward_hook(backward)  # type: ignore[index]
    objective = tiny.objective(net, len(images))
    method.update(objective, images, labels, torch.zeros_like(images), LINF)
    assert objective.evaluations == passes["forward"] == passes["backward"] == evaluations
    assert net.training


def test_label_smoothing_is_torchs() -> None:
    images, labels = batch()
    net, reference = tiny.network(), tiny.network()
    expected = functional.cross_entropy(reference.train()(images), labels, label_smoothing=0.2)
    found = Natural().update(tiny.objective(net, 5, 0.2), images, labels, torch.zeros_like(images), LINF)
    torch.testing.assert_close(found.loss, expected.detach())
