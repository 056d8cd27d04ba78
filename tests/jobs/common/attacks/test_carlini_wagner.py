"""Carlini & Wagner: known distances on linear models, foolbox's search, images of black and white."""

from types import ModuleType

import pytest
import torch

from jobs.common.attacks.base import Ball
from jobs.common.attacks.carlini_wagner import CarliniWagner, adam
from tests.jobs.common.attacks.linear import LinearDigits, linear
from tests.jobs.common.attacks.networks import predictions, random_images, small_net


def test_known_distances() -> None:
    """Far from the faces of the box, the nearest plane between two classes is (z_y - z_j) / |w_y - w_j| away."""
    weights = 0.3 * torch.randn(5, 64, generator=torch.Generator().manual_seed(0))
    model = linear(weights, torch.zeros(5))
    images = 0.4 + 0.2 * random_images(40, 1, 8, 8)
    labels = predictions(model, images)
    logits = model(images).detach()
    gaps = logits.gather(1, labels[:, None]) - logits
    lengths = torch.linalg.vector_norm(weights[labels][:, None] - weights, dim=2)
    exact, far = (gaps / lengths).scatter(1, labels[:, None], torch.inf).amin(1).topk(10)
    images, labels = images[far], labels[far]
    epsilon = float(exact.median())
    found = CarliniWagner(steps=300, binary_search_steps=14).run(model, images, labels, Ball("L2", epsilon))
    assert (found.minimum_distances >= exact * (1 - 1e-4)).all()
    assert (found.minimum_distances <= exact * 1.1).all()
    assert found.minimum_distances.median() <= exact.median() * 1.02
    assert torch.equal(found.successful, found.minimum_distances <= epsilon + 1e-5)
    assert 2 < found.successful.sum() < 10
    torch.testing.assert_close(found.distances[found.successful], found.minimum_distances[found.successful])
    assert not found.distances[~found.successful].any(), "beyond epsilon the image stays"


def test_distances_of_foolbox(digits: LinearDigits, foolbox: ModuleType) -> None:
    """Sample by sample alike with one trade-off each; the released code ends the descent of a whole batch together."""
    keep = predictions(digits.model, digits.images) == digits.labels
    images, labels = digits.images[keep][:20], digits.labels[keep][:20]
    found = CarliniWagner(steps=200, binary_search_steps=6).run(digits.model, images, labels, Ball("L2", 8.0))
    reference = foolbox.attacks.L2CarliniWagnerAttack(steps=200, binary_search_steps=6, abort_early=False)
    _, adversarials, _ = reference(foolbox.PyTorchModel(digits.model, bounds=(0, 1)), images, labels, epsilons=None)
    expected = Ball("L2", 8.0).distances(adversarials, images)
    assert found.successful.all()
    assert (found.minimum_distances <= expected * 1.05 + 1e-3).all()
    torch.testing.assert_close(found.minimum_distances.median(), expected.median(), rtol=0.02, atol=1e-3)


def test_pixels_of_black_and_white_can_move() -> None:
    weights = 0.3 * torch.randn(4, 64, generator=torch.Generator().manual_seed(1))
    model, images = linear(weights, torch.zeros(4)), random_images(6, 1, 8, 8).round()
    labels = predictions(model, images)
    found = CarliniWagner(steps=500, binary_search_steps=5, initial_constant=1.0).run(
        model, images, labels, Ball("L2", 3.0)
    )
    assert found.successful.all()
    assert (predictions(model, found.adversarials) != labels).all()


@pytest.mark.parametrize("confidence", [0.0, 0.5])
def test_targets_and_confidence(confidence: float) -> None:
    model, images = small_net(gain=10), random_images(6, 3, 8, 8)[:, :1]
    labels = predictions(model, images)
    targets = model(images).detach().topk(2).indices[:, 1]
    attack = CarliniWagner(steps=80, binary_search_steps=4, initial_constant=1.0, confidence=confidence)
    found = attack.run(model, images, labels, Ball("L2", 8.0), targets=targets)
    assert found.successful.sum() >= 4
    logits = model(found.adversarials).detach()[found.successful]
    wanted = targets[found.successful][:, None]
    lead = logits.gather(1, wanted)[:, 0] - logits.scatter(1, wanted, -torch.inf).amax(1)
    assert (lead > confidence - 1e-4).all()


def test_samples_do_not_depend_on_their_neighbours(digits: LinearDigits) -> None:
    """Each has its own trade-off and its own end."""
    attack, ball = CarliniWagner(steps=60, binary_search_steps=3, initial_constant=1.0), Ball("L2", 0.4)
    together = attack.run(digits.model, digits.images[:10], digits.labels[:10], ball)
    for row in range(0, 10, 3):
        alone = attack.run(digits.model, digits.images[row : row + 1], digits.labels[row : row + 1], ball)
        assert alone.queries[0] == together.queries[row]
        torch.testing.assert_close(alone.minimum_distances[0], together.minimum_distances[row], rtol=1e-3, atol=1e-4)


def test_steps_of_adam() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.zeros(3, 4, requires_grad=True)
    reference = torch.optim.Adam([values], lr=0.05)
    ours, velocity, scale = torch.zeros(3, 4), torch.zeros(3, 4), torch.zeros(3, 4)
    for step in range(1, 20):
        gradient = torch.randn(3, 4, generator=generator)
        values.grad = gradient.clone()
        reference.step()
        ours, velocity, scale = adam(ours, gradient, velocity, scale, step, 0.05)
    torch.testing.assert_close(ours, values.detach())


def test_trade_offs_stay_within_float32() -> None:
    model = linear(torch.zeros(3, 16), torch.tensor([5.0, 0, 0]))
    images = random_images(2, 1, 4, 4)
    attack = CarliniWagner(steps=2, binary_search_steps=50)
    found = attack.run(model, images, predictions(model, images), Ball("L2", 1.0))
    assert not found.successful.any() and not found.not_finite.any()
    assert not any("NaN" in sentence for sentence in found.warnings)
