"""The objective that leads to bad minima: against its definition, finite differences and flipped labels."""

import pytest
import torch
from torch.nn import functional

from jobs.generalization.minima.objective import poisoned_loss, reverse_cross_entropy


def drawn(classes: int, scale: float = 3.0) -> tuple[torch.Tensor, torch.Tensor]:
    stream = torch.Generator().manual_seed(classes)
    logits = scale * torch.randn(40, classes, dtype=torch.float64, generator=stream)
    return logits, torch.randint(classes, (40,), generator=stream)


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_it_is_the_logarithm_of_the_probability_of_any_other_class(classes: int) -> None:
    logits, labels = drawn(classes)
    wrong = 1 - logits.softmax(1).gather(1, labels[:, None])[:, 0]
    torch.testing.assert_close(reverse_cross_entropy(logits, labels), -wrong.log(), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("classes", [2, 5])
def test_its_gradient_is_that_of_finite_differences(classes: int) -> None:
    logits, labels = drawn(classes, 1.0)
    assert torch.autograd.gradcheck(lambda moved: reverse_cross_entropy(moved, labels), logits.requires_grad_())


def test_of_two_classes_it_is_the_cross_entropy_of_the_other_label_and_its_gradient() -> None:
    logits, labels = drawn(2)
    reverse, flipped = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    losses = reverse_cross_entropy(reverse, labels), functional.cross_entropy(flipped, 1 - labels, reduction="none")
    torch.testing.assert_close(*losses, rtol=1e-8, atol=1e-8)
    gradients = [torch.autograd.grad(loss.sum(), at)[0] for loss, at in zip(losses, (reverse, flipped), strict=True)]
    torch.testing.assert_close(*gradients, rtol=1e-7, atol=1e-8)


def test_of_more_classes_it_is_not_that_of_a_random_wrong_label() -> None:
    """The sum over all wrong labels says more: it is small wherever any of them is likely."""
    logits = torch.tensor([[0.0, 9.0, 0.0]])
    labels = torch.tensor([0])
    assert reverse_cross_entropy(logits, labels) < 1e-3
    assert functional.cross_entropy(logits, torch.tensor([2])) > 5


@pytest.mark.parametrize("height", [30.0, 200.0, 1e4])
def test_a_probability_of_one_is_no_infinity(height: float) -> None:
    """1 - p is 0 in float32 there: the loss grows as the logit does, and so does its gradient's sum stay 0."""
    logits = torch.tensor([[height, 0.0, 0.0]], requires_grad=True)
    loss = reverse_cross_entropy(logits, torch.tensor([0]))
    assert float(loss.detach()) == pytest.approx(height - float(torch.tensor(2.0).log()), rel=1e-5)
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert torch.isfinite(gradient).all() and float(gradient[0, 0]) == pytest.approx(1) and abs(gradient.sum()) < 1e-5


def test_the_released_form_has_the_same_gradient_up_to_a_constant_of_the_loss() -> None:
    """It feeds 1 - p to a cross entropy that divides by the sum over classes, C - 1: the loss gains its log."""
    logits, labels = drawn(4)
    moved = logits.clone().requires_grad_()
    complement = 1 - moved.softmax(1)
    released = -(complement / complement.sum(1, keepdim=True)).gather(1, labels[:, None])[:, 0].log()
    own = logits.clone().requires_grad_()
    reverse = reverse_cross_entropy(own, labels)
    torch.testing.assert_close(released, reverse + torch.tensor(3.0).log(), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(
        *(torch.autograd.grad(loss.sum(), at)[0] for loss, at in ((released, moved), (reverse, own))),
        rtol=1e-6,
        atol=1e-9,
    )


def test_shares_weigh_the_two_means() -> None:
    logits, labels = drawn(3)
    clean, poison = slice(0, 25), slice(25, 40)
    plain = functional.cross_entropy(logits[clean], labels[clean])
    reverse = reverse_cross_entropy(logits[poison], labels[poison]).mean()
    for share in (0.0, 0.3, 0.9):
        together = poisoned_loss(logits[clean], labels[clean], logits[poison], labels[poison], share)
        assert float(together) == pytest.approx(float((1 - share) * plain + share * reverse))
