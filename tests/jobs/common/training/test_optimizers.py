"""Learning rates against the tables of the papers, and optimizers that go on where they stopped."""

import math
from typing import Any, get_args

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from jobs.common.training.optimizers import Kind, OptimizerParams, moments, restore_moments, set_rate
from jobs.common.training.schedules import CosineDecay, LinearDecay, PolyDecay, StepDecay, WarmUp
from service.errors import FieldError


def test_exponential_warm_up_has_the_values_of_the_released_code():
    warm_up = WarmUp(kind="exponential", period=10)
    factors = [round(warm_up.factor(epoch), 3) for epoch in range(11)]
    assert factors[:2] == [0.095, 0.181]
    assert factors[8:] == [0.593, 1.0, 1.0]


def test_linear_warm_up_ends_at_the_full_rate():
    warm_up = WarmUp(kind="linear", period=50)
    assert warm_up.factor(0) == pytest.approx(1 / 50)
    assert [warm_up.factor(step) for step in (49, 50, 10_000)] == [1, 1, 1]


def test_step_decay_falls_at_its_milestones():
    decay = StepDecay(milestones=(60, 100))
    assert [decay.at(epoch, 150) for epoch in (0, 59, 60, 99)] == pytest.approx([1, 1, 0.1, 0.1])
    assert decay.at(100, 150) == pytest.approx(0.01)


def test_milestones_below_1_are_shares_of_training():
    shares, ticks = StepDecay(milestones=(1 / 2, 3 / 4, 11 / 12)), StepDecay(milestones=(150, 225, 275))
    assert [shares.at(epoch, 300) for epoch in range(300)] == [ticks.at(epoch, 300) for epoch in range(300)]
    assert [round(shares.at(epoch, 4), 6) for epoch in range(4)] == [1, 1, 0.1, 0.01]


@pytest.mark.parametrize("milestones", [(-1,), (-0.5, 100)])
def test_a_milestone_before_training_is_refused(milestones):
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        StepDecay(milestones=milestones)


def test_cosine_decay_is_that_of_torch():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=20)
    for tick in range(20):
        assert CosineDecay().at(tick, 20) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        reference.step()


def test_linear_rate_and_the_triangle():
    optimizer = OptimizerParams(learning_rate=0.2, warm_up=WarmUp(kind="linear", period=5), decay=LinearDecay(start=5))
    rates = [optimizer.rate(tick, 10) for tick in range(10)]
    assert rates == pytest.approx([0.04, 0.08, 0.12, 0.16, 0.2, 0.2, 0.16, 0.12, 0.08, 0.04])
    assert OptimizerParams(learning_rate=1.0, decay=LinearDecay()).rate(3, 4) == 0.25
    assert OptimizerParams(learning_rate=1.0, decay=CosineDecay()).rate(2, 4) == pytest.approx(0.5)


def test_poly_decay_is_a_power_of_what_is_left():
    assert PolyDecay().at(0, 100) == 1 and PolyDecay().at(50, 100) == pytest.approx(0.5**0.9)


def test_the_rate_is_the_product_of_its_parts():
    params = OptimizerParams(
        learning_rate=1e-3, warm_up=WarmUp(kind="exponential", period=10), decay=StepDecay(milestones=(5,))
    )
    assert params.rate(5, 20) == pytest.approx(1e-3 * (1 - math.exp(-0.6)) * 0.1)


def test_a_group_has_its_own_scale():
    fast, slow = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = OptimizerParams(kind="sgd", momentum=0.0, weight_decay=0.0).build([(1.0, [fast]), (0.1, [slow])])
    set_rate(optimizer, 0.5)
    (fast.sum() + slow.sum()).backward()
    optimizer.step()
    assert fast.tolist() == pytest.approx([0.5, 0.5])
    assert slow.tolist() == pytest.approx([0.95, 0.95])


@pytest.mark.parametrize("kind", ["adam", "adamw", "sgd"])
def test_an_optimizer_goes_on_where_it_stopped(kind):
    """Also when the weights lie in memory channels last and the saved moments do not."""
    params = OptimizerParams(kind=kind)

    def network() -> nn.Module:
        torch.manual_seed(0)
        return nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)

    def steps(network: nn.Module, optimizer: torch.optim.Optimizer, count: int) -> None:
        for _ in range(count):
            optimizer.zero_grad()
            network(torch.ones(1, 3, 5, 5)).square().sum().backward()
            optimizer.step()

    undisturbed = network()
    optimizer = params.build([(1.0, list(undisturbed.parameters()))])
    steps(undisturbed, optimizer, 3)
    saved = [{name: value.clone().contiguous() for name, value in each.items()} for each in moments(optimizer)]
    weights = {name: value.clone().contiguous() for name, value in undisturbed.state_dict().items()}
    steps(undisturbed, optimizer, 3)

    resumed = network()
    resumed.load_state_dict(weights)
    optimizer = params.build([(1.0, list(resumed.parameters()))])
    restore_moments(optimizer, saved)
    steps(resumed, optimizer, 3)
    for one, other in zip(resumed.parameters(), undisturbed.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("kind", get_args(Kind))
def test_every_rule_goes_on_where_it_stopped(kind: Any) -> None:
    """Moments are plain data from which another optimizer goes on to the same weights, bit for bit."""
    rule = OptimizerParams(kind=kind, learning_rate=0.01, weight_decay=0.0 if kind == "lbfgs" else 1e-3)

    def steps(weight: nn.Parameter, optimizer: torch.optim.Optimizer, first: int, last: int) -> None:
        for step in range(first, last):
            set_rate(optimizer, rule.rate(step, 10))

            def loss(step: int = step) -> Tensor:
                weight.grad = (weight.detach() * (step + 1)).cos()
                return (weight.detach() * (step + 1)).sin().sum() / (step + 1)

            loss()
            optimizer.step(loss if kind == "lbfgs" else None)  # type: ignore[arg-type]

    weight = nn.Parameter(torch.linspace(-1, 1, 6).view(2, 3))
    optimizer = rule.build([(1.0, [weight])])
    steps(weight, optimizer, 0, 4)
    copied = nn.Parameter(weight.detach().clone())
    resumed = rule.build([(1.0, [copied])])
    restore_moments(resumed, [dict(each) for each in moments(optimizer)])
    before = weight.detach().clone()
    steps(weight, optimizer, 4, 8)
    steps(copied, resumed, 4, 8)
    assert torch.equal(weight, copied) and not torch.equal(weight, before)


@pytest.mark.parametrize(("field", "value"), [("weight_decay", 1e-4), ("clip", 1.0)])
def test_lbfgs_takes_the_gradients_as_they_are(field: str, value: float) -> None:
    with pytest.raises(ValidationError, match=f"{field} must be .* for lbfgs"):
        OptimizerParams(**{"kind": "lbfgs", "weight_decay": 0.0, field: value})
    one, other = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    with pytest.raises(FieldError, match="optimizer.kind must be another one"):
        OptimizerParams(kind="lbfgs", weight_decay=0.0).build([(1.0, [one]), (0.1, [other])])


def test_what_is_kept_of_the_moments() -> None:
    """Under torch's names; as many numbers as the rule has."""
    weight = nn.Parameter(torch.ones(2))
    for kind, numbers, name, value in (
        ("amsgrad", (0.9, 0.99), "betas", (0.9, 0.99)),
        ("adamax", (0.9, 0.9), "betas", (0.9, 0.9)),
        ("rmsprop", (0.72,), "alpha", 0.72),
        ("adadelta", (0.5,), "rho", 0.5),
    ):
        params: Any = {"kind": kind, "averaging": numbers}
        assert OptimizerParams(**params).build([(1.0, [weight])]).param_groups[0][name] == value
    with pytest.raises(ValidationError, match="averaging must have 2 numbers for adam"):
        OptimizerParams(averaging=(0.9,))
    with pytest.raises(ValidationError, match="averaging must be none for sgd"):
        OptimizerParams(kind="sgd", averaging=(0.9,))
