"""Auto-PGD: exact robustness of a linear model, the released code step by step, its checkpoints, L1."""

from collections.abc import Callable

import pytest
import torch
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
from torch import Tensor, nn

from jobs.common.attacks.apgd import APGD, APGDTargeted
from jobs.common.attacks.apgd_steps import HalvedSteps, SparseSteps, windows
from jobs.common.attacks.base import Attack, Ball, Goal, Search
from jobs.common.attacks.targets import aim_at
from service.errors import InputError
from tests.jobs.common.attacks.linear import LinearDigits
from tests.jobs.common.attacks.networks import in_ball, predictions, random_images, small_net
from tests.jobs.common.attacks.trained import digits_net


def test_checkpoints() -> None:
    assert HalvedSteps.checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert windows([22, 41, 57]) == {22: 22, 41: 19, 57: 16}
    assert HalvedSteps.checkpoints(1) == [1]
    assert SparseSteps.checkpoints(10) == list(range(1, 11))
    assert SparseSteps.checkpoints(100)[:3] == [4, 8, 12]


@pytest.mark.parametrize(
    "epsilon", [pytest.param(0.02, marks=pytest.mark.slow), 0.05, pytest.param(0.08, marks=pytest.mark.slow)]
)
def test_exact_robustness_of_a_linear_model(digits: LinearDigits, epsilon: float) -> None:
    """None goes below it; towards targets within 0.002 of it."""
    ball, exact = Ball("Linf", epsilon), digits.robust("Linf", epsilon)
    for attack in (APGDTargeted(), APGD(), APGD(loss="dlr"), APGD(loss="margin")):
        found = attack.run(digits.model, digits.images, digits.labels, ball)
        assert not (found.successful & exact).any()
        assert in_ball(found.adversarials, digits.images, ball)
        if isinstance(attack, APGDTargeted):
            assert float((~found.successful).float().mean() - exact.float().mean()) <= 0.002


@pytest.mark.parametrize(("norm", "epsilon"), [("L2", 0.4), ("L1", 2.0)])
def test_exact_robustness_in_other_norms(digits: LinearDigits, norm: str, epsilon: float) -> None:
    ball, exact = Ball(norm, epsilon), digits.robust(norm, epsilon)[:250]  # type: ignore[arg-type]
    found = APGDTargeted(large_epsilon=norm == "L1").run(digits.model, digits.images[:250], digits.labels[:250], ball)
    assert not (found.successful & exact).any()
    assert float((~found.successful).float().mean() - exact.float().mean()) <= 0.004


class Spy(nn.Module):
    """Keeps every batch that a model is asked about."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.asked = model, []  # type: ignore[var-annotated]

    def forward(self, images: Tensor) -> Tensor:
        self.asked.append(images.detach().clone())
        return self.model(images)  # type: ignore[no-any-return]


@pytest.mark.parametrize(("norm", "epsilon"), [("Linf", 0.1), ("L2", 0.5)])
@pytest.mark.parametrize("kind", ["cross_entropy", "dlr", "targeted"])
def test_the_released_code_step_by_step(norm: str, epsilon: float, kind: str) -> None:
    """On robust samples, both ask about the same points from the start to the last step."""
    model, images, labels = (each[:40] if isinstance(each, Tensor) else each for each in digits_net())
    attack: Attack
    reference: Callable[[Tensor, Tensor], Tensor]
    spied = Spy(model).eval()
    if kind == "targeted":
        attack = APGDTargeted(steps=30, targets=2)
        reference = APGDAttack_targeted(spied, 30, norm, eps=epsilon, seed=5, n_target_classes=2).perturb
    else:
        attack = APGD(steps=30, loss=kind)  # type: ignore[arg-type]
        loss = {"cross_entropy": "ce", "dlr": "dlr"}[kind]
        reference = APGDAttack(spied, 30, norm, eps=epsilon, seed=5, loss=loss).perturb
    ball = Ball(norm, epsilon)  # type: ignore[arg-type]
    for _ in range(3):  # only the robust ones, also from other starts: the batch changes the starts
        robust = ~attack.run(model, images, labels, ball, seed=5).successful
        images, labels = images[robust], labels[robust]
    assert len(images) >= 5
    ours = Spy(model).eval()
    assert not attack.run(ours, images, labels, ball, seed=5).successful.any()
    with torch.random.fork_rng():
        reference(images, labels)
    passes = [torch.stack([each for each in spy.asked]) for spy in (ours, spied)]
    moved = [each[(each != images).flatten(1).any(1)] for each in passes]  # without passes over the clean images
    assert len(moved[0]) == 31 * (2 if kind == "targeted" else 1)
    # of two points with losses that are equal but for rounding either may be the best: they are almost the same point
    torch.testing.assert_close(moved[0], moved[1], rtol=0, atol=2e-3)
    assert (moved[0][-1] - moved[0][-2]).abs().max() < epsilon / 2, "steps have been halved"


def test_in_l1() -> None:
    """Both schedules stay in ball and box whenever something counts, and find as much as the released code."""
    model, images, labels = (each[:40] if isinstance(each, Tensor) else each for each in digits_net())
    ball = Ball("L1", 1.5)
    for large in (False, True):
        found = APGD(large_epsilon=large, steps=50).run(model, images, labels, ball)
        assert in_ball(found.adversarials, images, ball)
        assert found.adversarials.min() >= 0 and found.adversarials.max() <= 1
        with torch.random.fork_rng():
            reference = APGDAttack(model, 50, "L1", eps=1.5, seed=0, use_largereps=large).perturb(images, labels)
        assert found.successful.sum() >= (predictions(model, reference) != labels).sum() - 1
        assert 0 < found.successful.sum() < 40


def test_samples_that_leave_change_nothing_for_the_others() -> None:
    """The same start alone and beside samples that break: the same end, whatever happens to its neighbours."""
    model, images, labels = (each[:30] if isinstance(each, Tensor) else each for each in digits_net())
    ball = Ball("Linf", 0.15)
    whole = APGD(restarts=1).run(model, images, labels, ball)
    assert 3 < whole.successful.sum() < 27

    class Stubborn(nn.Module):
        """Never admits defeat: what breaks is noted, and all samples go on."""

        def __init__(self) -> None:
            super().__init__()
            self.lost = torch.zeros(30, dtype=torch.bool)

        def forward(self, points: Tensor) -> Tensor:
            logits: Tensor = model(points)
            lost = logits.argmax(1) != labels
            self.lost |= lost
            best = logits.detach().amax(1) - logits.detach().gather(1, labels[:, None])[:, 0] + 1
            return logits + (nn.functional.one_hot(labels, 10) * (best * lost)[:, None])

    stubborn = Stubborn().eval()
    assert not APGD().run(stubborn, images, labels, ball).successful.any()
    assert stubborn.lost.tolist() == whole.successful.tolist()


def test_work_is_counted() -> None:
    model, images = small_net(), random_images(6, 1, 12, 12)
    labels = predictions(model, images)
    found = APGD(steps=10, restarts=2, passes=3).run(model, images, labels, Ball("Linf", 1e-6))
    assert found.gradients.tolist() == [2 * 11 * 3] * 6
    assert found.queries.tolist() == [1 + 2 * 11 * 3] * 6
    found = APGDTargeted(steps=10).run(model, images, labels, Ball("Linf", 1e-6))
    assert found.gradients.tolist() == [9 * 11] * 6


def test_towards_targets() -> None:
    model, images = small_net(gain=5), random_images(20, 1, 12, 12)
    labels = predictions(model, images)
    targets = (labels + 1) % 10
    for attack in (APGD(loss="margin"), APGD(), APGDTargeted()):
        found = attack.run(model, images, labels, Ball("Linf", 0.5), targets=targets)
        assert found.successful.sum() > 5
        assert (predictions(model, found.adversarials) == targets)[found.successful].all()


def test_large_epsilon_is_for_l1() -> None:
    model, images = small_net(), random_images(2, 1, 8, 8)
    with pytest.raises(InputError, match="large_epsilon is a schedule for L1, but the norm is Linf"):
        APGD(large_epsilon=True).run(model, images, predictions(model, images), Ball("Linf", 0.1))
    with pytest.raises(InputError, match="large_epsilon is a schedule for L1, but the norm is L2"):
        APGDTargeted(large_epsilon=True).check(Ball("L2", 0.1), images, classes=10)
    APGD(large_epsilon=True).check(Ball("L1", 0.1), images, classes=10)


def test_the_label_is_no_target_where_logits_are_equal() -> None:
    def tied(images: Tensor) -> Tensor:
        mean = images.flatten(1).mean(1, keepdim=True)
        return torch.cat([0 * mean, 0 * mean, -1 - mean], 1)

    images, labels = random_images(2, 1, 4, 4), torch.zeros(2, dtype=torch.int64)
    search = Search(tied, images, Goal(labels), Ball("L2", 1.0))
    ranks = [aim_at(search, torch.arange(2), rank).targets for rank in (2, 3)]
    assert torch.stack([each for each in ranks if each is not None]).tolist() == [[1, 1], [2, 2]]
