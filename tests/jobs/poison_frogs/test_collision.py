"""Forward-backward splitting against closed forms, the profiles against plain loops, batches against single images."""

from dataclasses import fields
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from jobs.common.models.classifiers.small import digits_16_net
from jobs.poison_frogs.features import Features
from jobs.poison_frogs.poisons.collision import backward_step, craft, quantised
from jobs.poison_frogs.poisons.recipes import FeatureCollision

DRAW = torch.Generator().manual_seed(3)
MAP = torch.randn(6, 16, generator=DRAW, dtype=torch.float64) / 4
BASES, TARGETS = torch.rand(2, 7, 1, 4, 4, generator=DRAW, dtype=torch.float64)
CODE: dict[str, Any] = {"profile": "code", "iterations": 130, "quantise": "none"}
FREE: dict[str, Any] = {"clip": False, "quantise": "none", "stop_change": 0.0}


def linear(images: Tensor) -> Tensor:
    return images.flatten(1) @ MAP.T


def free(**options: Any) -> FeatureCollision:
    return FeatureCollision(**(FREE | options))


def test_a_step_on_a_linear_feature_map_is_the_closed_form():
    recipe = free(iterations=1, step=0.05, beta=0.7)
    found = craft(linear, BASES, TARGETS, linear(TARGETS), recipe).images.flatten(1)
    base = BASES.flatten(1)
    moved = base - 0.05 * 2 * (base @ MAP.T - TARGETS.flatten(1) @ MAP.T) @ MAP
    torch.testing.assert_close(found, (moved + 0.05 * 0.7 * base) / (1 + 0.05 * 0.7))


def test_steps_end_where_the_printed_step_has_its_fixed_point():
    """The prox of β/2 ‖x - b‖² leads to the minimiser of ‖Ax - t‖² + β/2 ‖x - b‖²."""
    recipe = free(iterations=1000, step=0.1, beta=0.5)
    found = craft(linear, BASES, TARGETS, linear(TARGETS), recipe).images.flatten(1)
    normal = 2 * MAP.T @ MAP + 0.5 * torch.eye(16, dtype=torch.float64)
    right = 2 * linear(TARGETS) @ MAP + 0.5 * BASES.flatten(1)
    torch.testing.assert_close(found, torch.linalg.solve(normal, right.T).T)


def test_the_backward_step_minimises_its_proximal_problem():
    x = torch.linspace(-1, 2, 300_001, dtype=torch.float64)
    moved, base, rate, beta = 1.3, 0.2, 0.4, 0.9
    best = x[(0.5 * (x - moved) ** 2 + rate * beta / 2 * (x - base) ** 2).argmin()]
    tensors = [torch.tensor(value, dtype=torch.float64) for value in (moved, base, rate * beta)]
    assert float(backward_step(*tensors)) == pytest.approx(float(best), abs=1e-5)


def test_beta_follows_the_dimensions_and_pixels_their_range():
    numbers = 299 * 299 * 3
    assert FeatureCollision().weight(2048, numbers) == pytest.approx(1.458e-5, rel=1e-3)  # section 3.1 of the sheet
    code = FeatureCollision(profile="code", beta0=0.25)
    assert code.weight(2048, numbers) * code.step == pytest.approx(1.86, rel=1e-2)
    assert FeatureCollision(profile="code_end_to_end").weight(192, 3072) == 0.1


def test_a_profile_has_what_is_not_given_and_stays_what_it_is_in_a_resolved_spec():
    code = FeatureCollision(profile="code", iterations=7)
    assert (code.squared, code.pixel_range, code.quantise, code.iterations) == (False, 255, "truncate", 7)
    assert FeatureCollision.model_validate_json(code.model_dump_json()) == code
    assert FeatureCollision(profile="paper") == FeatureCollision() and not FeatureCollision(squared=False).squared
    # the same attack in both ranges: λ shrinks by 255², β grows by it
    options: dict[str, Any] = {"iterations": 25, "control": "objective"}
    one = craft(linear, BASES, TARGETS, linear(TARGETS), free(step=0.1, beta=0.3, **options))
    wide = free(step=0.1 * 255**2, beta=0.3 / 255**2, pixel_range=255, **options)
    torch.testing.assert_close(craft(linear, BASES, TARGETS, linear(TARGETS), wide).images, one.images)


def reference(base: Tensor, target: Tensor, recipe: FeatureCollision) -> tuple[Tensor, int, str]:
    """One pair, in plain words, as the released code goes about it."""
    beta, wanted = recipe.weight(6, 16), linear(target)

    def loss(x: Tensor) -> Tensor:
        return (linear(x) - wanted).norm()

    def objective(x: Tensor) -> float:
        return float(loss(x) + beta * recipe.pixel_range * (x - base).norm())

    x, rate, first, second, taken = base.clone(), recipe.step, torch.zeros_like(base), torch.zeros_like(base), 0
    objectives = [objective(x)]
    now = objectives[0]
    for iteration in range(recipe.iterations):
        if recipe.stop_objective is not None and now <= recipe.stop_objective:
            return x, iteration, "objective"
        leaf = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(leaf), leaf)
        if recipe.forward == "adam":
            taken += 1
            first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
            step = rate * (first / (1 - 0.9**taken)) / ((second / (1 - 0.999**taken)).sqrt() + 1e-8)
        else:
            step = rate / recipe.pixel_range**2 * gradient
        new = (x - step + rate * beta * base) / (1 + rate * beta)
        new = new.clamp(0, 1) if recipe.clip else new
        if (new - x).norm() / new.norm() < recipe.stop_change:
            return x, iteration, "no change"
        after = objective(new)
        if recipe.control == "window":
            worse = after >= sum(objectives) / min(40, iteration + 1) and iteration % 40 in (0, 1)
        else:
            worse = float(loss(new)) >= float(loss(x))
        if worse:
            rate *= recipe.decay
        else:
            x, now = new, after
        objectives = [*objectives, after][-40:]
    return x, recipe.iterations, "iterations"


@pytest.mark.parametrize(
    "recipe",
    [
        FeatureCollision(
            profile="code", step=60_000.0, beta0=4e-5, iterations=130, stop_objective=0.5, quantise="none"
        ),
        FeatureCollision(profile="code", step=6_000.0, beta=1e-4, iterations=130, stop_objective=0.05, quantise="none"),
        FeatureCollision(profile="code_end_to_end", iterations=400),
        FeatureCollision(profile="code_end_to_end", iterations=400, step=0.3, clip=True),
    ],
)
def test_the_profiles_of_the_code_go_as_a_plain_loop_goes(recipe):
    found = craft(linear, BASES, TARGETS, linear(TARGETS), recipe)
    for row, (base, target) in enumerate(zip(BASES, TARGETS, strict=True)):
        expected, iterations, stopped = reference(base[None], target[None], recipe)
        torch.testing.assert_close(found.images[row], expected[0])
        assert (int(found.iterations[row]), found.stopped[row]) == (iterations, stopped)


@pytest.mark.parametrize(
    "recipe",
    [
        FeatureCollision(iterations=40, step=0.05, stop_ratio=0.45, watermark=0.2),
        FeatureCollision(profile="code", iterations=60, step=2e4, beta0=1e-3, stop_objective=0.08),
        FeatureCollision(profile="code_end_to_end", iterations=40, stop_change=5e-3),
    ],
    ids=lambda recipe: recipe.kind,
)
def test_a_batch_gives_what_one_at_a_time_gives(recipe):
    torch.manual_seed(0)
    network = digits_16_net(classes=10, channels=1, side=8, size=24).double()
    bases, targets = torch.rand(2, 9, 1, 8, 8, generator=DRAW, dtype=torch.float64)
    features = Features(network, bases[:1])
    wanted, near = features(targets), torch.linspace(0.05, 0.6, 9, dtype=torch.float64)
    whole = craft(features, bases, targets, wanted, recipe, near)
    assert len(set(whole.stopped)) > 1 or len(set(whole.iterations.tolist())) > 1, "they leave at different times"
    for row in range(9):
        one = slice(row, row + 1)
        alone = craft(features, bases[one], targets[one], wanted[one], recipe, near[one])
        for field in fields(alone):
            expected, found = getattr(alone, field.name), getattr(whole, field.name)[one]
            if field.name == "stopped":
                assert found == expected
            else:
                torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


def test_a_step_that_raises_the_objective_is_taken_back():
    recipe = free(iterations=60, step=50.0, beta=0.1)
    found = craft(linear, BASES, TARGETS, linear(TARGETS), recipe)
    start = (linear(BASES) - linear(TARGETS)).norm(dim=1)
    assert bool((found.collision < 0.9 * start).all()), "after enough cuts the steps are short enough"
    one = craft(linear, BASES, TARGETS, linear(TARGETS), free(iterations=1, step=50.0, beta=0.1))
    assert torch.equal(one.images, BASES)


@pytest.mark.parametrize(("squared", "beta"), [(True, 0.5), (False, 4.0)])
def test_judged_steps_reach_the_least_of_what_they_go_down(squared: bool, beta: float) -> None:
    """Judged by another objective, with the whole of β, they stall above it."""
    recipe = free(iterations=1000, step=0.1, beta=beta, squared=squared)
    points = craft(linear, BASES, TARGETS, linear(TARGETS), recipe).images

    def objective(points: Tensor) -> Tensor:
        loss = (linear(points) - linear(TARGETS)).square().sum(1)
        return (loss if squared else loss.sqrt()) + beta / 2 * (points - BASES).flatten(1).square().sum(1)

    least = BASES.clone().requires_grad_()
    solver = torch.optim.LBFGS([least], max_iter=500, tolerance_change=0, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        solver.zero_grad()
        total = objective(least).sum()
        total.backward()
        return total

    solver.step(closure)
    torch.testing.assert_close(objective(points), objective(least.detach()), rtol=1e-3, atol=0)


def test_each_pair_stops_for_its_own_reason():
    start = (linear(BASES) - linear(TARGETS)).norm(dim=1)
    near = start.clone()
    near[0] *= 2  # there already
    near[1:] *= 1e-3
    recipe = free(iterations=30, step=0.1, beta=1.0, stop_ratio=0.9)
    found = craft(linear, BASES, TARGETS, linear(TARGETS), recipe, near)
    assert found.stopped == ["collided"] + ["iterations"] * 6 and found.iterations.tolist() == [0] + [30] * 6
    again = craft(linear, TARGETS, TARGETS, linear(TARGETS), recipe, near)
    assert again.stopped == ["collided"] * 7 and torch.equal(again.images, TARGETS)
    huge = free(iterations=30, step=1e-9, beta=1e9, stop_change=1e-6)
    assert craft(linear, BASES, TARGETS, linear(TARGETS), huge).stopped == ["no change"] * 7

    def broken(images: Tensor) -> Tensor:
        return linear(images) + torch.where(torch.arange(len(images)) == 2, torch.nan, 0.0)[:, None]

    found = craft(broken, BASES, TARGETS, linear(TARGETS), recipe, near)
    assert found.stopped[2] == "not finite" and torch.equal(found.images[2], BASES[2])


def test_the_watermark_comes_first_and_epsilon_is_around_the_base():
    none = craft(linear, BASES, TARGETS, linear(TARGETS), free(iterations=0, watermark=0.3))
    torch.testing.assert_close(none.images, 0.3 * TARGETS + 0.7 * BASES)
    bound = craft(
        linear, BASES, TARGETS, linear(TARGETS), FeatureCollision(iterations=20, step=0.2, epsilon=0.05, watermark=0.3)
    )
    assert float((bound.images - BASES).abs().max()) <= 0.05 + 0.5 / 255 + 1e-9
    assert bool((bound.images >= 0).all() and (bound.images <= 1).all())


def test_the_collision_is_measured_on_what_is_trained_on():
    for how in ("round", "truncate"):
        recipe = FeatureCollision(iterations=30, step=0.2, beta=0.0, quantise=how)
        found = craft(linear, BASES, TARGETS, linear(TARGETS), recipe)
        assert torch.equal(found.images * 255, (found.images * 255).round())
        torch.testing.assert_close(found.features, linear(found.images))
        torch.testing.assert_close(found.collision, (linear(found.images) - linear(TARGETS)).norm(dim=1))
        assert not torch.allclose(found.collision, found.unquantised)
    values = torch.tensor([0.49, 0.5, 1.5, 2.5, 254.7, 300.0]) / 255
    assert (quantised(values, "round") * 255).tolist() == pytest.approx([0, 0, 2, 2, 255, 255])
    assert (quantised(values, "truncate") * 255).tolist() == pytest.approx([0, 0, 1, 2, 254, 255], abs=1e-4)


def test_a_network_in_a_batch_is_left_as_it_was():
    network = digits_16_net(classes=10, channels=1, side=8, size=24)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    images = torch.rand(2, 1, 8, 8)
    craft(Features(network, images[:1]), images, images.flip(0), torch.zeros(2, 24), FeatureCollision(iterations=3))
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert isinstance(network, nn.Module) and all(weight.grad is None for weight in network.parameters())
