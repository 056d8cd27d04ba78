"""Poisons around a target: closed forms on linear features, torch's Adam, one set alone, layers, views, dropout."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from jobs.poison_frogs.poisons.polytope import Features, PolytopeParams, bullseye, collisions, convex, craft
from service.errors import InputError

OBJECTIVES = ("bullseye_polytope", "convex_polytope", "feature_collision_ensemble")


def params(objective: str = "bullseye_polytope", **changes: object) -> PolytopeParams:
    return PolytopeParams.model_validate({"objective": objective, "steps": 30, **changes})


def pixels(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, 1, 6, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Blocks(nn.Module):
    """A small net that gives the map of its first layer and the vector of its last."""

    def __init__(self, seed: int, dropout: float = 0.0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.first = nn.Conv2d(1, 4, 3).double()
            self.last = nn.Linear(64, 10).double()
        self.dropout = dropout

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = functional.relu(self.first(images))  # (batch, 4, 4, 4)
        return [maps, functional.relu(self.last(functional.dropout(maps.flatten(1), self.dropout)))]


def last_of(net: nn.Module) -> Features:
    return lambda images: net(images)[-1]


def test_values_by_hand() -> None:
    poisons = torch.tensor([[[0.0, 2.0], [4.0, 2.0]]])  # two poisons, their centre at (2, 2)
    aim = torch.tensor([[2.0, 5.0]])
    assert bullseye(poisons, aim).item() == pytest.approx(3 / 29**0.5)
    loss, coefficients = convex(poisons, torch.tensor([[1.0, 5.0]]))
    assert coefficients.tolist() == [[0.75, 0.25]] and loss.item() == pytest.approx(4.5 / 26)
    assert collisions(poisons, aim).item() == pytest.approx((13 + 13) / 29)


def test_maps_are_measured_at_each_position() -> None:
    """The mean over positions of a norm over channels; a position where the target has nothing is left out."""
    poisons = torch.randn(1, 3, 5, 2, 2, generator=torch.Generator().manual_seed(0))
    aim = torch.randn(1, 5, 2, 2, generator=torch.Generator().manual_seed(1))
    each = [
        float((poisons[0].mean(0)[:, y, x] - aim[0, :, y, x]).norm() / aim[0, :, y, x].norm())
        for y in (0, 1)
        for x in (0, 1)
    ]
    assert bullseye(poisons, aim).item() == pytest.approx(sum(each) / 4)
    aim[0, :, 0, 0] = 0
    assert bullseye(poisons, aim).item() == pytest.approx(sum(each[1:]) / 3)


def test_bullseye_of_linear_features_meets_the_target() -> None:
    """Unbounded, the centre of the poisons gets to where a linear map sees the target: the loss falls to nothing."""
    weight = torch.randn(5, 36, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    bases, targets = pixels(2, 4), pixels(2, 1, seed=1)
    crafted = craft(
        bases, targets, [lambda x: x.flatten(1) @ weight.T], params(epsilon=1.0, steps=400, learning_rate=0.01)
    )
    seen = (crafted.images.mean(1) - targets[:, 0]).flatten(1) @ weight.T
    assert float((seen.norm(dim=1) / (targets[:, 0].flatten(1) @ weight.T).norm(dim=1)).max()) < 0.02
    assert crafted.steps.tolist() == [400, 400]


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_steps_are_those_of_adam(objective: str) -> None:
    """Against torch's Adam on the objective written out, two networks, for as long as nothing is clipped."""
    nets = [Blocks(0), Blocks(1)]
    bases, target = 0.4 + 0.2 * pixels(1, 3), pixels(1, 1, seed=1)
    found = craft(
        bases, target, [last_of(net) for net in nets], params(objective, steps=6, epsilon=0.4, learning_rate=0.01)
    )
    images = bases[0].clone().requires_grad_()
    adam = torch.optim.Adam([images], lr=0.01)
    for _ in range(6):
        losses = []
        for net in nets:
            features, aim = net(images)[-1], net(target[0])[-1].detach()
            if objective == "bullseye_polytope":
                losses.append((features.mean(0) - aim[0]).norm() / aim.norm())
            elif objective == "feature_collision_ensemble":
                losses.append(sum((one - aim[0]).square().sum() for one in features) / aim.square().sum())
            else:
                _, best = convex(features[None].detach(), aim)
                losses.append((best[0] @ features - aim[0]).square().sum() / 2 / aim.square().sum())
        adam.zero_grad()
        (sum(losses) / 2).backward()
        adam.step()
    torch.testing.assert_close(found.images[0], images.detach(), rtol=0, atol=1e-8)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_sets_together_are_as_each_alone(objective: str) -> None:
    networks: list[Features] = [Blocks(0), Blocks(1)]
    bases, targets = pixels(5, 3), pixels(5, 2, seed=1)
    together = craft(bases, targets, networks, params(objective))
    for row in range(5):
        alone = craft(bases[row : row + 1], targets[row : row + 1], networks, params(objective))
        torch.testing.assert_close(together.images[row], alone.images[0], rtol=0, atol=1e-7)
        torch.testing.assert_close(together.losses[row], alone.losses[0], rtol=0, atol=1e-8)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_budget_is_kept_and_the_objective_falls(objective: str) -> None:
    networks: list[Features] = [Blocks(0), Blocks(1)]
    bases, targets = pixels(4, 3), pixels(4, 1, seed=1)
    crafted = craft(bases, targets, networks, params(objective, steps=60))
    before = craft(bases, targets, networks, params(objective, steps=1, learning_rate=1e-12))
    assert bool((crafted.losses < 0.9 * before.losses).all())
    assert float((crafted.images - bases).abs().max()) <= 0.1 + 1e-12
    assert float(crafted.images.min()) >= 0 and float(crafted.images.max()) <= 1


def test_coefficients_are_of_each_network_and_layer() -> None:
    """On the simplex, optimal for the last images, and different where the features are."""
    nets = [Blocks(0), Blocks(1)]
    bases, targets = pixels(2, 4), pixels(2, 1, seed=1)
    crafted = craft(bases, targets, nets, params("convex_polytope"))
    assert [[tuple(each.shape) for each in layers] for layers in crafted.coefficients] == [[(2, 4)] * 2] * 2
    with torch.no_grad():
        for net, found in zip(nets, crafted.coefficients, strict=True):
            for layer, aim, each in zip(net(crafted.images.flatten(0, 1)), net(targets[:, 0]), found, strict=True):
                _, expected = convex(layer.unflatten(0, (2, 4)), aim)
                torch.testing.assert_close(each, expected, rtol=0, atol=1e-9)
    assert not torch.allclose(crafted.coefficients[0][0], crafted.coefficients[0][1])
    assert craft(bases, targets, nets, params()).coefficients == ()


def test_views_of_a_target_are_averaged_in_feature_space() -> None:
    """Several views are one target whose features are the mean of theirs."""
    weight = torch.randn(5, 36, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    views = pixels(1, 3, seed=1)
    bases = pixels(1, 2)
    several = craft(bases, views, [lambda x: x.flatten(1) @ weight.T], params())
    single = craft(bases, views.mean(1, keepdim=True), [lambda x: x.flatten(1) @ weight.T], params())
    torch.testing.assert_close(several.images, single.images, rtol=0, atol=1e-9)


def test_dropout_is_drawn_from_the_seed() -> None:
    """More draws average it away; the caller's own random stream is left where it was."""
    net, plain = Blocks(0, dropout=0.5), Blocks(0)
    bases, targets = pixels(1, 3), pixels(1, 1, seed=1)
    torch.manual_seed(5)
    first, again, other = (craft(bases, targets, [last_of(net)], params(), seed=seed).images for seed in (1, 1, 2))
    after = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(3))
    assert torch.equal(first, again) and not torch.allclose(first, other)
    one = params(steps=1, learning_rate=1e-12)
    exact = craft(bases, targets, [last_of(plain)], one).losses
    many = craft(bases, targets, [last_of(net)], one.model_copy(update={"draws": 100}), seed=1).losses
    few = torch.stack([craft(bases, targets, [last_of(net)], one, seed=seed).losses for seed in range(10)])
    assert float((many - exact).abs()) < float((few - exact).abs().mean())


def test_starts_are_clipped_to_epsilon() -> None:
    bases, targets = pixels(1, 3), pixels(1, 1, seed=1)
    starts = 0.3 * targets + 0.7 * bases
    crafted = craft(bases, targets, [Blocks(0)], params(steps=1, learning_rate=1e-12, epsilon=0.05), starts=starts)
    torch.testing.assert_close(crafted.images, bases + (starts - bases).clamp(-0.05, 0.05), rtol=0, atol=1e-9)


def test_a_set_that_is_not_finite_stops_alone() -> None:
    """Its images stay as they were; the others go on as if it were not there."""
    bases, targets = pixels(3, 2), pixels(3, 1, seed=1)
    bases[1] = 0

    def brittle(images: Tensor) -> Tensor:
        return images.flatten(1).mean(1, keepdim=True).sqrt() + images.flatten(1)  # no derivative at black images

    for objective in OBJECTIVES:
        together = craft(bases, targets, [brittle], params(objective))
        assert together.steps.tolist() == [30, 0, 30] and torch.equal(together.images[1], bases[1])
        alone = craft(bases[[0, 2]], targets[[0, 2]], [brittle], params(objective))
        torch.testing.assert_close(together.images[[0, 2]], alone.images, rtol=0, atol=1e-9)


def test_what_does_not_fit_is_said() -> None:
    bases, targets, nets = pixels(2, 3), pixels(2, 1), [Blocks(0)]
    with pytest.raises(InputError, match="the features of target 1 must be .*; in layer 0 of network 0 it is 0"):
        craft(bases, torch.cat([targets[:1], targets[1:] * 0]), [lambda x: x.flatten(1)], params())
    with pytest.raises(InputError, match="networks must be at least 1"):
        craft(bases, targets, [], params())
    with pytest.raises(InputError, match=r"they are \(2, 3, 1, 6, 6\) and \(1, 1, 1, 6, 6\)"):
        craft(bases, targets[:1], nets, params())
    with pytest.raises(InputError, match=r"bases must be in \[0, 1\]; they are in \[[\d.]+, 2\d\d"):
        craft(bases * 255, targets, nets, params())
    with pytest.raises(InputError, match="one set, one base and one view"):
        craft(bases[:, :0], targets, nets, params())
    with pytest.raises(InputError, match="starts must be"):
        craft(bases, targets, nets, params(), starts=bases[:1])
