"""What is true of every attack: seeds, the ball, the counters, and no trace left behind."""

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from jobs.common.attacks import APGD, ATTACKS, FAB, FGSM, PGD, APGDTargeted, AttackParams, CarliniWagner, Square
from jobs.common.attacks.base import Attack, Ball, Goal, Search, kept
from tests.jobs.common.attacks.linear import LinearDigits
from tests.jobs.common.attacks.networks import predictions, random_images, small_net

EXAMPLES: list[Attack] = [
    FGSM(),
    PGD(steps=5, restarts=2),
    CarliniWagner(steps=20, binary_search_steps=3, initial_constant=1.0),
    Square(queries=30),
    APGD(steps=10, restarts=2),
    APGDTargeted(steps=5, targets=3),
    FAB(steps=5, targets=2),
]
BALLS = [Ball("Linf", 0.05), Ball("L2", 0.4), Ball("L1", 2.0)]
CASES = [(attack, ball) for attack in EXAMPLES for ball in BALLS if ball.norm in attack.norms]


@pytest.mark.parametrize(("attack", "ball"), CASES, ids=[f"{attack.kind}-{ball.norm}" for attack, ball in CASES])
def test_every_attack(attack: Attack, ball: Ball, digits: LinearDigits) -> None:
    images, labels = digits.images[:40], digits.labels[:40]
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
    assert ball.holds(found.adversarials - images).all()
    assert torch.equal(predictions(digits.model, found.adversarials) != labels, found.successful)
    torch.testing.assert_close(found.distances, ball.norms(found.adversarials - images))
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
        found = attack.run(model, images[rows], labels[rows], Ball("L2", 0.1))
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
    torch.testing.assert_close(search.result().distances, torch.tensor([0.4, 0.0, 0.4]))


def test_minimum_norms_beyond_epsilon_are_noted_but_break_nothing() -> None:
    images, goal = torch.zeros(3, 1, 2, 2), Goal(torch.tensor([0, 0, 0]))
    search = Search(lambda points: torch.tensor([[2.0, 0.0]]).expand(len(points), 2), images, goal, Ball("L2", 1.0))
    points = torch.stack([torch.full((1, 2, 2), value) for value in (0.45, 0.9)])
    search.record_minimum(torch.tensor([1, 2]), points)
    search.record_minimum(torch.tensor([2]), points[1:] + 0.05)
    result = search.result()
    assert result.successful.tolist() == [False, True, False]
    torch.testing.assert_close(result.minimum_distances, torch.tensor([torch.inf, 0.9, 1.8]))
    torch.testing.assert_close(result.distances, torch.tensor([0.0, 0.9, 0.0]))


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
