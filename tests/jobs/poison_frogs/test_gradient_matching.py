"""Gradient matching: finite differences, batches and one pass, its schedule and signs, augmentation, restarts."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from jobs.poison_frogs.poisons import gradient_matching
from jobs.poison_frogs.poisons.gradient_matching import (
    Augmentation,
    Brewed,
    MatchingParams,
    brew,
    brew_once,
    cosine_loss,
    matching_gradient,
    pull_back,
    target_gradient,
    training_gradient,
)
from service.errors import InputError

LABELS = torch.tensor([0, 0, 0, 0, 0])
WANTED = torch.tensor([0])


def net(seed: int = 0, dropout: float = 0.0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 3, 3),
            nn.BatchNorm2d(3),
            nn.Softplus(),  # smooth, for finite differences
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(48, 3),
        ).double()


def pixels(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 1, 6, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def parts(shift: float = 1.5) -> tuple[nn.Module, Tensor, list[Tensor], Augmentation]:
    network, images = net().eval(), pixels(5)
    aim = target_gradient(network, pixels(1, seed=9), WANTED)
    drawn = Augmentation.draw(images, MatchingParams(shift=shift), torch.Generator().manual_seed(3))
    return network, images, aim, drawn


def loss_of(network: nn.Module, images: Tensor, aim: list[Tensor], augmentation: Augmentation | None = None) -> float:
    """1 - cosine, written out."""
    moved = images if augmentation is None else augmentation.apply(images)
    loss = nn.functional.cross_entropy(network(moved), LABELS, reduction="sum")
    own = torch.cat([each.flatten() for each in torch.autograd.grad(loss, list(network.parameters()))])
    other = torch.cat([each.flatten() for each in aim])
    return float(1 - own @ other / own.norm() / other.norm())


@pytest.mark.parametrize("batch", [5, 2])
@pytest.mark.parametrize("augmented", [True, False])
def test_gradient_by_images_against_finite_differences(batch: int, augmented: bool) -> None:
    network, images, aim, drawn = parts()
    augmentation = drawn if augmented else None
    loss, gradient = matching_gradient(images, LABELS, [aim], [network], batch, augmentation)
    assert loss == pytest.approx(loss_of(network, images, aim, augmentation), abs=1e-12)
    generator = torch.Generator().manual_seed(1)
    for _ in range(6):
        direction = torch.randn(images.shape, generator=generator, dtype=torch.float64)
        ends = [loss_of(network, images + step * direction, aim, augmentation) for step in (1e-5, -1e-5)]
        slope = float((gradient * direction).sum())
        assert slope == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-5, abs=1e-9)


def test_the_cosine_is_global_whatever_the_batch() -> None:
    network, images, aim, drawn = parts()
    whole = matching_gradient(images, LABELS, [aim], [network], 5, drawn)
    for batch in (1, 2, 3, 4):
        loss, gradient = matching_gradient(images, LABELS, [aim], [network], batch, drawn)
        assert loss == pytest.approx(whole[0], abs=1e-12)
        torch.testing.assert_close(gradient, whole[1], rtol=0, atol=1e-12)
    params = MatchingParams(steps=5, restarts=1, shift=1)
    ends = [
        brew_once(images, LABELS, [aim], [network], params.model_copy(update={"batch": batch}), seed=4).images
        for batch in (2, 5)
    ]
    torch.testing.assert_close(ends[0], ends[1], rtol=0, atol=1e-12)


def test_passes_can_be_shared_out() -> None:
    """What workers find on their own poisons adds up to the first pass, and puts together the second."""
    network, images, aim, _ = parts()
    shares = [training_gradient(network, images[rows], LABELS[rows]) for rows in (slice(0, 2), slice(2, 5))]
    loss, pull = cosine_loss([a + b for a, b in zip(*shares, strict=True)], aim)
    found = [pull_back(network, images[rows], LABELS[rows], pull) for rows in (slice(0, 2), slice(2, 5))]
    expected = matching_gradient(images, LABELS, [aim], [network], 5)
    assert loss == pytest.approx(expected[0], abs=1e-12)
    torch.testing.assert_close(torch.cat(found), expected[1], rtol=0, atol=1e-12)


def test_several_networks_are_averaged() -> None:
    images = pixels(5)
    networks = [net(seed).eval() for seed in (0, 1)]
    aims = [target_gradient(each, pixels(1, seed=9), WANTED) for each in networks]
    loss, gradient = matching_gradient(images, LABELS, aims, networks, 5)
    each = [matching_gradient(images, LABELS, [aim], [one], 5) for one, aim in zip(networks, aims, strict=True)]
    assert loss == pytest.approx((each[0][0] + each[1][0]) / 2)
    torch.testing.assert_close(gradient, (each[0][1] + each[1][1]) / 2)


def test_target_gradient_is_that_of_the_mean() -> None:
    network, targets = net().eval(), pixels(3, seed=9)
    wanted = torch.tensor([0, 1, 2])
    loss = nn.functional.cross_entropy(network(targets), wanted)
    for own, other in zip(
        target_gradient(network, targets, wanted), torch.autograd.grad(loss, list(network.parameters())), strict=True
    ):
        torch.testing.assert_close(own, other)


def test_schedule() -> None:
    """Divided by ten at steps 93, 156 and 218 of 250, as published."""
    params = MatchingParams()
    rates = [params.rate(step) for step in range(250)]
    assert [step for step in range(1, 250) if rates[step] < 0.5 * rates[step - 1]] == [93, 156, 218]
    assert rates[0] == 0.1 and rates[249] == pytest.approx(1e-4)


@pytest.mark.parametrize("deviation", [1.0, 0.25])
def test_steps_are_those_of_adam_on_signs(deviation: float) -> None:
    """Against torch's Adam whose gradient is replaced by its sign, between clippings to the ball and to [0, 1]."""
    network, images, aim, _ = parts()
    params = MatchingParams(steps=8, shift=0, flip=False, learning_rate=0.02, epsilon=0.1)
    found = brew_once(images, LABELS, [aim], [network], params, 7, torch.tensor([deviation]))
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(7)).double() * 0.1
    moving = (images + noise.clamp(-0.1, 0.1)).clamp(0, 1).requires_grad_()
    adam = torch.optim.Adam([moving])
    for step in range(8):
        adam.param_groups[0]["lr"] = params.rate(step) * deviation
        _, gradient = matching_gradient(moving.detach(), LABELS, [aim], [network], 5)
        moving.grad = gradient.sign()
        adam.step()
        with torch.no_grad():
            moving.copy_((images + (moving - images).clamp(-0.1, 0.1)).clamp(0, 1))
    torch.testing.assert_close(found.images, moving.detach(), rtol=0, atol=1e-9)
    assert found.loss == pytest.approx(loss_of(network, found.images, aim))


def test_shifts_and_flips() -> None:
    """Whole pixels are a roll with black coming in, halves the mean of two neighbours, a flip is a flip."""
    images = pixels(3)
    moved = Augmentation(torch.tensor([[1.0, 0.0], [0.0, -2.0], [0.0, 0.5]]).double(), torch.zeros(3) > 0).apply(images)
    torch.testing.assert_close(moved[0, :, 1:], images[0, :, :-1])
    assert float(moved[0, :, 0].abs().max()) < 1e-12
    torch.testing.assert_close(moved[1, :, :, :-2], images[1, :, :, 2:])
    torch.testing.assert_close(moved[2, :, :, 1:], (images[2, :, :, 1:] + images[2, :, :, :-1]) / 2)
    flips = torch.tensor([True, False, True])
    mirrored = Augmentation(torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.0, 1.0]]).double(), flips).apply(images)
    torch.testing.assert_close(mirrored[0], images[0].flip(2))
    torch.testing.assert_close(mirrored[1], images[1])
    torch.testing.assert_close(mirrored[2, :, :, 1:], images[2].flip(2)[:, :, :-1])


def test_what_is_drawn() -> None:
    images = pixels(2000)
    drawn = Augmentation.draw(images, MatchingParams(shift=8), torch.Generator().manual_seed(0))
    assert float(drawn.shifts.abs().max()) <= 8 and float(drawn.shifts.std()) == pytest.approx(16 / 12**0.5, rel=0.05)
    assert 900 < int(drawn.flips.sum()) < 1100
    still = Augmentation.draw(images, MatchingParams(shift=0, flip=False), torch.Generator().manual_seed(0))
    torch.testing.assert_close(still.apply(images), images)


def test_the_best_restart_is_kept() -> None:
    network, bases = net().eval(), pixels(5)
    params = MatchingParams(steps=25, restarts=3, shift=1, learning_rate=0.05, epsilon=0.2)
    seeds: list[int] = []

    def seed(restart: int) -> int:
        seeds.append(restart)
        return 100 + restart

    found = brew(bases, LABELS, pixels(1, seed=9), WANTED, [network], params, seed)
    aim = target_gradient(network, pixels(1, seed=9), WANTED)
    alone = [brew_once(bases, LABELS, [aim], [network], params, 100 + restart) for restart in range(3)]
    assert seeds == [0, 1, 2] and found.losses == tuple(one.loss for one in alone)
    assert len(set(found.losses)) == 3
    best = min(alone, key=lambda one: one.loss)
    assert found.loss == best.loss and torch.equal(found.images, best.images)
    assert found.loss < 0.8 * loss_of(network, bases, aim)
    assert float((found.images - bases).abs().max()) <= 0.2 + 1e-12
    assert float(found.images.min()) >= 0 and float(found.images.max()) <= 1


def test_dropout_is_the_same_in_both_passes() -> None:
    """The caller's random stream is left where it was, and the network too."""
    network, images = net(dropout=0.5).eval(), pixels(5)
    network[4].train()
    aim = target_gradient(network.eval(), pixels(1, seed=9), WANTED)
    network[4].train()
    network.requires_grad_(False)  # as where features have been cut from it
    state = {name: each.clone() for name, each in network.state_dict().items()}
    torch.manual_seed(5)
    one, two = (matching_gradient(images, LABELS, [aim], [network], 2, seed=3) for _ in range(2))
    after = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(3))
    for first, second in zip(*(target_gradient(network, images[:1], WANTED) for _ in range(2)), strict=True):
        assert torch.equal(first, second)
    assert one[0] == two[0] and torch.equal(one[1], two[1])
    for _ in range(2):  # a direction: the draws of both passes must agree for the slope to be that of the loss
        direction = torch.randn(images.shape, dtype=torch.float64)
        ends = [
            matching_gradient(images + step * direction, LABELS, [aim], [network], 2, seed=3)[0]
            for step in (1e-5, -1e-5)
        ]
        assert float((one[1] * direction).sum()) == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-5, abs=1e-9)
    assert all(torch.equal(each, state[name]) for name, each in network.state_dict().items())
    assert all(weight.grad is None for weight in network.parameters())


def test_restarts_that_are_not_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    real: Callable[..., Brewed] = brew_once

    def broken(*arguments: object) -> Brewed:
        found = real(*arguments)
        return found if arguments[5] in good else Brewed(found.images, math.nan, (math.nan,))

    monkeypatch.setattr(gradient_matching, "brew_once", broken)
    params = MatchingParams(steps=1, restarts=3)
    good = {1}
    found = brew(pixels(5), LABELS, pixels(1, seed=9), WANTED, [net().eval()], params, lambda restart: restart)
    assert math.isfinite(found.loss) and [math.isnan(loss) for loss in found.losses] == [True, False, True]
    good = set()
    with pytest.raises(InputError, match="a restart of gradient matching must stay finite; none does"):
        brew(pixels(5), LABELS, pixels(1, seed=9), WANTED, [net().eval()], params, lambda restart: restart)


def test_a_gradient_that_is_not_finite_ends_a_start() -> None:
    network, images, aim, _ = parts()
    with torch.no_grad():
        network[5].weight.fill_(math.nan)
    assert math.isnan(brew_once(images, LABELS, [aim], [network], MatchingParams(steps=3), 0).loss)


def test_what_does_not_fit_is_said() -> None:
    network, images, aim, _ = parts()
    with pytest.raises(InputError, match="batch norm '1' must be in evaluation mode"):
        target_gradient(net(), images[:1], WANTED)
    with pytest.raises(InputError, match="batch norm '1' must be in evaluation mode"):
        brew_once(images, LABELS, [aim], [net()], MatchingParams(), 0)
    with pytest.raises(InputError, match=r"labels must be \(5,\), one for each base; their shape is \(2,\)"):
        brew_once(images, LABELS[:2], [aim], [network], MatchingParams(), 0)
    with pytest.raises(InputError, match=r"bases must be in \[0, 1\]; they are in"):
        brew_once(images * 255, LABELS, [aim], [network], MatchingParams(), 0)
    with pytest.raises(InputError, match="target gradients must be as many as networks, at least 1: 2; they are 1"):
        brew_once(images, LABELS, [aim], [network, network], MatchingParams(), 0)
    with torch.no_grad():
        network[5].weight.zero_()
        network[5].bias.copy_(torch.tensor([1e4, 0.0, 0.0]))
    with pytest.raises(InputError, match="finite and above 0, to be matched; it is 0"):
        target_gradient(network, images[:1], WANTED)
