"""What is true of every attack: seeds, the ball, the counters, and no trace left behind."""

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from jobs.common.attacks import (
    APGD,
    ATTACKS,
    DDN,
    FAB,
    FGSM,
    FMN,
    PGD,
    APGDTargeted,
    AttackParams,
    CarliniWagner,
    HopSkipJump,
    Norm,
    SigmaZero,
    SparseRS,
    Square,
)
from jobs.common.attacks.base import Attack, Ball, Goal, Search, kept
from service.errors import InputError
from tests.jobs.common.attacks.linear import LinearDigits
from tests.jobs.common.attacks.networks import in_ball, predictions, random_images, small_net

EXAMPLES: list[Attack] = [
    FGSM(),
    PGD(steps=5, restarts=2),
    CarliniWagner(steps=20, binary_search_steps=3, initial_constant=1.0),
    Square(queries=30),
    APGD(steps=10, restarts=2),
    APGDTargeted(steps=5, targets=3),
    FAB(steps=5, targets=2),
    DDN(steps=10),
    FMN(steps=10),
    SigmaZero(steps=20),
    SparseRS(queries=30),
    HopSkipJump(queries=60),
]
BALLS = [Ball("L2", 0.4), Ball("Linf", 0.05), Ball("L1", 2.0), Ball("L0", 2)]
CASES = [(attack, ball) for attack in EXAMPLES for ball in BALLS if ball.norm in attack.norms]


def known(attack: Attack) -> Ball:
    """A ball that the attack knows."""
    return next(ball for ball in BALLS if ball.norm in attack.norms)


@pytest.mark.parametrize(("attack", "ball"), CASES, ids=[f"{attack.kind}-{ball.norm}" for attack, ball in CASES])
def test_every_attack(attack: Attack, ball: Ball, digits: LinearDigits) -> None:
    images, labels = digits.images[:40], digits.labels[:40]
    digits.model.zero_grad()  # attacks of other libraries leave gradients
    before, weights = images.clone(), [each.clone() for each in digits.model.parameters()]
    stream = torch.random.get_rng_state()
    found = attack.run(digits.model, images, labels, ball, seed=5)

    again = attack.run(digits.model, images, labels, ball, seed=5)
    for field in ("adversarials", "successful", "distances", "minimum_distances", "queries", "gradients"):
        assert torch.equal(getattr(found, field), getattr(again, field)), f"{field} differ under the same seed"
    assert torch.equal(stream, torch.random.get_rng_state()), "the global stream of random numbers moved"
    assert torch.equal(before, images)
    assert all(map(torch.equal, weights, digits.model.parameters()))
    assert all(each.grad is None for each in digits.model.parameters())

    assert found.adversarials.amin() >= 0 and found.adversarials.amax() <= 1
    assert in_ball(found.adversarials, images, ball)
    assert torch.equal(predictions(digits.model, found.adversarials) != labels, found.successful)
    torch.testing.assert_close(found.distances, ball.distances(found.adversarials, images))
    assert (found.minimum_distances[found.successful] <= found.distances[found.successful]).all()
    assert not found.adversarials.requires_grad
    wrong = predictions(digits.model, images) != labels
    assert found.successful[wrong].all() and not found.distances[wrong].any() and (found.queries[wrong] == 1).all()


@pytest.mark.parametrize("attack", EXAMPLES, ids=lambda attack: attack.kind)
def test_nothing_to_do(attack: Attack) -> None:
    """A batch that is wrong from the start costs one query each; so does a batch of one."""
    model, images = small_net(), random_images(3, 1, 8, 8)
    labels = (predictions(model, images) + 1) % 10
    for rows in (slice(0, 3), slice(0, 1)):
        found = attack.run(model, images[rows], labels[rows], known(attack))
        assert found.successful.all() and not found.distances.any() and not found.minimum_distances.any()
        assert (found.queries == 1).all() and not found.gradients.any()


def test_another_seed_is_another_start(digits: LinearDigits) -> None:
    first, second = (
        PGD(steps=2).run(digits.model, digits.images, digits.labels, Ball("Linf", 0.02), seed) for seed in (0, 1)
    )
    assert not torch.equal(first.adversarials, second.adversarials)


def test_what_broke_a_sample_first_is_kept() -> None:
    images, goal = torch.zeros(3, 1, 2, 2), Goal(torch.tensor([0, 0, 0]))
    search = Search(lambda points: torch.tensor([[2.0, 0.0]]).expand(len(points), 2), images, goal, Ball("L2", 1.0))
    rows, success, failure = torch.tensor([0, 2]), torch.tensor([[0.0, 1.0]] * 2), torch.tensor([[1.0, 0.0]] * 2)
    for value, logits in ((0.1, failure), (0.2, success), (0.3, success), (0.4, failure)):
        search.record(rows, torch.full((2, 1, 2, 2), value), logits)
    assert search.remaining.tolist() == [1]
    torch.testing.assert_close(search.result().distances, torch.tensor([0.4, 0.0, 0.4]).double())


def test_minimum_norms_beyond_epsilon_are_noted_but_break_nothing() -> None:
    images, goal = torch.zeros(3, 1, 2, 2), Goal(torch.tensor([0, 0, 0]))
    search = Search(lambda points: torch.tensor([[2.0, 0.0]]).expand(len(points), 2), images, goal, Ball("L2", 1.0))
    points = torch.stack([torch.full((1, 2, 2), value) for value in (0.45, 0.9)])
    search.record_minimum(torch.tensor([1, 2]), points)
    search.record_minimum(torch.tensor([2]), points[1:] + 0.05)
    result = search.result()
    assert result.successful.tolist() == [False, True, False]
    torch.testing.assert_close(result.minimum_distances, torch.tensor([torch.inf, 0.9, 1.8]).double())
    torch.testing.assert_close(result.distances, torch.tensor([0.0, 0.9, 0.0]).double())


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_a_point_just_outside_of_the_ball_breaks_nothing(norm: Norm) -> None:
    """What float32 rounds off is forgiven, and nothing more."""
    images, goal = torch.full((2, 1, 1, 1), 0.5), Goal(torch.tensor([0, 0]))
    search = Search(lambda points: torch.tensor([[2.0, 0.0]]).expand(len(points), 2), images, goal, Ball(norm, 0.25))
    search.record_minimum(torch.arange(2), images + 0.25 + torch.tensor([1.2e-7, 2e-6]).view(2, 1, 1, 1))
    assert search.result().successful.tolist() == [True, False]


# HopSkipJump may begin at another image of the batch, whose logits are finite
AT_THE_IMAGE = [(attack, ball) for attack, ball in CASES if attack.kind != "hop_skip_jump"]


@pytest.mark.parametrize(
    ("attack", "ball"), AT_THE_IMAGE, ids=[f"{attack.kind}-{ball.norm}" for attack, ball in AT_THE_IMAGE]
)
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_logits_that_are_not_finite_are_no_success(attack: Attack, ball: Ball, value: float) -> None:
    """A model that gives no numbers as soon as an image changes: nothing has changed its answer, and that is told."""
    net, images = small_net(), random_images(6, 1, 12, 12)
    labels = predictions(net, images)

    def model(points: torch.Tensor) -> torch.Tensor:
        away = (points[:, None] - images).abs().flatten(2).amax(2).amin(1)
        lost = torch.zeros(len(points), 10)
        lost[:, 3] = value
        return net(points) + torch.where(away[:, None] > 1e-6, lost, 0)

    result = attack.run(model, images, labels, ball)
    assert not result.successful.any() and result.minimum_distances.isinf().all()
    assert result.not_finite.all() and result.adversarials.isfinite().all()
    assert any("the logits of 6 of 6 samples were NaN or infinite" in each for each in result.warnings)


@pytest.mark.parametrize(
    "attack", [each for each in EXAMPLES if each.cost("L2", 10, False).backward], ids=lambda each: each.kind
)
def test_gradients_that_are_not_finite_lead_nowhere_but_are_told(attack: Attack) -> None:
    """The slope of a root at 0 is infinite, and times 0 it is NaN: pixels must not become NaN, where logits are too."""
    net, images = small_net(), random_images(4, 1, 12, 12)
    labels = predictions(net, images)

    def model(points: torch.Tensor) -> torch.Tensor:
        return net(points) + 0 * (points - points.detach()).sqrt().sum()

    result = attack.run(model, images, labels, known(attack))
    assert result.adversarials.isfinite().all() and not result.not_finite.any()
    assert any("the gradients of 4 of 4 samples were NaN or infinite" in each for each in result.warnings)


def test_a_model_that_cuts_gradients_off_is_refused() -> None:
    net, images = small_net(), random_images(2, 1, 8, 8)
    labels = predictions(net, images)
    with pytest.raises(InputError, match="the model must pass gradients on to the images; it cuts them off"):
        FGSM().run(torch.no_grad()(net), images, labels, Ball("Linf", 0.1))


def test_states_are_not_copied_when_all_are_kept() -> None:
    state = torch.arange(3)
    assert kept(torch.tensor([True] * 3), state)[0] is state
    assert kept(torch.tensor([True, False, True]), state)[0].tolist() == [0, 2]


@pytest.mark.parametrize("kind", ATTACKS)
def test_attacks_are_built_from_plain_values(kind: str) -> None:
    """As specs and endpoints give them; every option says what it is."""
    built = TypeAdapter(AttackParams).validate_python({"kind": kind})
    assert type(built) is ATTACKS[kind] and built.kind == kind
    assert all(field.description for field in type(built).model_fields.values())
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        TypeAdapter(AttackParams).validate_python({"kind": kind, "epsilon": 8})


def test_options_are_strict() -> None:
    with pytest.raises(ValidationError, match="does not match any of the expected tags: 'fgsm', 'pgd'"):
        TypeAdapter(AttackParams).validate_python({"kind": "pdg"})
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        ATTACKS["pgd"].model_validate({"steps": 0})
