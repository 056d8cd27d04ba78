"""DDN, FMN, sigma-zero and sparse-RS: exact distances of linear models and tiny networks, and other libraries."""

import itertools
from types import ModuleType

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from jobs.common.attacks import DDN, FMN, SigmaZero, SparseRS
from jobs.common.attacks.base import Attack, Ball, Model, Search
from jobs.common.attacks.goals import Goal
from jobs.common.attacks.losses import cross_entropy, soft_margin
from jobs.common.attacks.nearest import OVERSHOOT, straighten
from service.errors import InputError
from tests.jobs.common.attacks.linear import LinearDigits, least_norms, linear
from tests.jobs.common.attacks.networks import predictions, random_images, small_net
from tests.jobs.common.attacks.trained import digits_net

BALLS = {"Linf": Ball("Linf", 0.05), "L2": Ball("L2", 0.4), "L1": Ball("L1", 1.0), "L0": Ball("L0", 2)}
SEARCHES: list[tuple[Attack, str]] = [
    (DDN(steps=60), "L2"),
    (FMN(steps=60), "L2"),
    (FMN(steps=60), "Linf"),
    (FMN(steps=100), "L1"),
    (FMN(steps=60), "L0"),
    (SigmaZero(steps=100), "L0"),
]
NAMES = [f"{attack.kind}-{norm}" for attack, norm in SEARCHES]


@pytest.mark.parametrize(("attack", "norm"), SEARCHES, ids=NAMES)
def test_least_norms_of_a_linear_model(digits: LinearDigits, attack: Attack, norm: str) -> None:
    """Never below the exact distance, and nearly at it, in the ball or beyond."""
    images, labels, ball = digits.images[:100], digits.labels[:100], BALLS[norm]
    result = attack.run(digits.model, images, labels, ball)
    exact = least_norms(digits.model, images, labels, norm)
    assert (result.minimum_distances >= exact * (1 - 1e-5)).all()
    ratios = (result.minimum_distances / exact)[exact > 0]
    assert ratios.median() <= {"L1": 1.02}.get(norm, 1.005)
    assert ratios.mean() <= {"L0": 1.1, "L1": 1.05}.get(norm, 1.01)
    assert not result.successful[exact > ball.longest].any()
    assert result.successful.any() and not result.successful.all()
    assert torch.equal(result.successful, result.minimum_distances <= ball.longest)
    assert not result.distances[~result.successful].any(), "beyond epsilon the image stays"
    assert float(result.gradients.double().mean()) < 0.8 * attack.steps, "samples leave that no longer come nearer"  # type: ignore[attr-defined]


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_on_linearised_borders_a_linear_model_is_solved_at_once(digits: LinearDigits, norm: str) -> None:
    """From far beyond the border, in a few gradients, up to the share that is gone beyond it."""
    images, labels = digits.images[:60], digits.labels[:60]
    search = Search(digits.model, images, Goal(labels), BALLS[norm])
    nearest = FMN(steps=15).descend(search, 15, 5, torch.Generator().manual_seed(0))
    rows = nearest.known
    nearest.points[rows] = (images[rows] + 1.5 * (nearest.points[rows] - images[rows])).clamp(0, 1)
    nearest.norms[rows] = search.ball.norms(nearest.points[rows] - images[rows])
    rows = rows[search.goal[rows].reached(digits.model(nearest.points[rows]))]
    before = int(search.gradients.max())
    straighten(search, nearest, 12)
    exact = least_norms(digits.model, images, labels, norm)
    assert len(rows) > 40 and int(search.gradients.max()) - before <= 12
    ratios = nearest.norms[rows] / exact[rows]
    assert ((ratios >= 1 - 1e-5) & (ratios.median() <= 1 + 1.1 * OVERSHOOT)).all() and ratios.mean() <= 1.05


@pytest.mark.parametrize(
    ("attack", "norm"), [(DDN(steps=30), "L2"), (FMN(steps=60), "L0"), (SigmaZero(steps=60), "L0")]
)
def test_the_model_itself_has_the_last_word(
    digits: LinearDigits, monkeypatch: pytest.MonkeyPatch, attack: Attack, norm: str
) -> None:
    """Steps may ask a model that is not quite the same: what it alone takes for the goal is no success."""
    images = digits.images[:40]
    labels = predictions(digits.model, images)
    nearly = torch.nn.functional.one_hot(labels, 10) * 0.05

    def other(model: Model, few: Tensor) -> Model:
        return lambda points: model(points) - nearly if len(points) == 40 else model(points)

    monkeypatch.setattr("jobs.common.attacks.prepared.prepared", other)
    ball = Ball(norm, 8)  # type: ignore[arg-type]
    result = attack.run(digits.model, images, labels, ball)
    assert result.successful.sum() > 10
    assert (predictions(digits.model, result.adversarials) != labels)[result.successful].all()


@pytest.mark.parametrize(("attack", "norm"), SEARCHES, ids=NAMES)
def test_towards_targets(digits: LinearDigits, attack: Attack, norm: str) -> None:
    images = digits.images[:40]
    labels = predictions(digits.model, images)
    targets = (labels + 1) % 10
    ball = Ball(norm, {"Linf": 0.3, "L2": 2.0, "L1": 8.0, "L0": 12}[norm])  # type: ignore[arg-type]
    result = attack.run(digits.model, images, labels, ball, targets=targets)
    exact = least_norms(digits.model, images, labels, norm, targets)  # a bound: the target must win against all
    assert (result.minimum_distances >= exact * (1 - 1e-5)).all() and result.successful.sum() > 20
    assert (predictions(digits.model, result.adversarials) == targets)[result.successful].all()


@pytest.mark.parametrize(("attack", "norm"), [*SEARCHES, (SparseRS(queries=20), "L0")], ids=[*NAMES, "sparse_rs-L0"])
def test_the_model_is_asked_inside_of_the_box_alone(digits: LinearDigits, attack: Attack, norm: str) -> None:
    asked = []

    def model(points: Tensor) -> Tensor:
        asked.append((float(points.detach().amin()), float(points.detach().amax())))
        return digits.model(points)

    attack.run(model, digits.images[:20].round(), digits.labels[:20], BALLS[norm])
    assert min(least for least, _ in asked) >= 0 and max(most for _, most in asked) <= 1


def convex(seed: int) -> tuple[nn.Sequential, Tensor]:
    """A network whose margin over class 0 is convex, and images of that class: its maximum over some coordinates is at
    their faces.
    """
    generator = torch.Generator().manual_seed(seed)
    net = nn.Sequential(nn.Flatten(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2)).eval().requires_grad_(False)
    for layer in (net[1], net[3]):
        layer.weight.normal_(generator=generator)
    net[1].bias.normal_(generator=generator).mul_(0.5)
    net[3].weight[0] = 0
    net[3].weight[1].abs_()
    images = torch.rand(40, 1, 2, 4, generator=generator)
    net[3].bias[:] = 0
    margins = net(images)[:, 1]
    net[3].bias[0] = margins.median() + 0.4 * margins.std()
    return net, images[margins < net[3].bias[0]]


def fewest(net: nn.Module, image: Tensor) -> float:
    """The least number of coordinates whose change takes the image from class 0, of all 3^8 choices."""
    choices = torch.tensor(list(itertools.product((-1.0, 0.0, 1.0), repeat=8)))  # below 0: as it is
    points = torch.where(choices < 0, image.flatten(), choices)
    changed = (points != image.flatten()).sum(1)[predictions(net, points.view(-1, *image.shape)) == 1]
    return float(changed.min()) if len(changed) else float("inf")


@pytest.mark.parametrize("attack", [FMN(steps=60), SigmaZero(steps=100)], ids=lambda attack: attack.kind)
def test_fewest_coordinates_by_exhaustive_search(attack: Attack) -> None:
    exact, found = [], []
    for seed in range(4):
        net, images = convex(seed)
        exact.append(torch.tensor([fewest(net, image) for image in images]))
        labels = torch.zeros(len(images), dtype=torch.int64)
        found.append(attack.run(net, images, labels, Ball("L0", 8)).minimum_distances)
    least, known = torch.cat(exact), torch.cat(found)
    assert len(set(least[least.isfinite()].tolist())) > 1, "of several sizes"
    assert (known >= least).all()
    assert float((known == least).double().mean()) >= 0.9


def test_sparse_search_at_a_budget_by_exhaustive_search() -> None:
    for count in (1, 2, 3):
        net, images = convex(0)
        exact = torch.tensor([fewest(net, image) for image in images]) <= count
        labels = torch.zeros(len(images), dtype=torch.int64)
        result = SparseRS(queries=200).run(net, images, labels, Ball("L0", count))
        assert not (result.successful & ~exact).any()
        assert result.successful.sum() >= 0.9 * exact.sum()


@pytest.mark.parametrize(
    ("attack", "norm", "theirs"),
    [
        (FMN(steps=100), "Linf", "LInfFMNAttack"),
        (FMN(steps=100), "L2", "L2FMNAttack"),
        (DDN(steps=100), "L2", "DDNAttack"),
        (FMN(steps=100), "L1", "L1FMNAttack"),
        (FMN(steps=100), "L0", "L0FMNAttack"),
    ],
)
def test_nearer_than_foolbox(foolbox: ModuleType, attack: DDN | FMN, norm: str, theirs: str) -> None:
    """On a network that was trained against attacks, at as many gradients at most, image by image in the mean."""
    model, images, labels = digits_net()
    right = predictions(model, images) == labels
    images, labels = images[right][:40], labels[right][:40]
    _, points, reached = getattr(foolbox.attacks, theirs)(steps=100)(
        foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu"), images, labels, epsilons=None
    )
    ball = BALLS[norm]
    distances = torch.where(reached, ball.distances(points, images), torch.inf)
    result = attack.run(model, images, labels, ball)
    assert result.gradients.max() <= 100
    assert (result.minimum_distances / distances).mean() <= 1


@pytest.mark.parametrize("attack", [DDN(), FMN(), SigmaZero(), SparseRS()], ids=lambda attack: attack.kind)
def test_maps_are_refused(attack: Attack) -> None:
    ball = next(ball for ball in BALLS.values() if ball.norm in attack.norms)
    with pytest.raises(InputError, match=f"^{attack.kind} attacks classifiers alone, but fgsm and pgd"):
        attack.run(nn.Conv2d(1, 2, 1).eval(), torch.zeros(1, 1, 4, 4), torch.zeros(1, 4, 4).long(), ball)


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1", "L0"])
def test_where_gradients_are_zero_a_random_direction_is_tried(norm: str) -> None:
    """A network that answers by steps: what is in the way of a gradient is not in the way of the attack."""

    def model(points: Tensor) -> Tensor:
        sides = (points.flatten(1).mean(1) > 0.5).float() + 0 * points.flatten(1).sum(1)
        return torch.stack([sides, 1 - sides], dim=1) * 3 + torch.tensor([0.1, 0.0])

    images = 0.5 + 0.01 * (random_images(10, 1, 4, 4) - 0.5)
    labels = model(images).argmax(1)
    result = FMN(steps=30).run(model, images, labels, BALLS[norm], seed=1)
    assert result.minimum_distances.isfinite().sum() >= 8
    assert any("the gradient of 10 of 10 samples is zero" in each for each in result.warnings)
    again = FMN(steps=30).run(model, images, labels, BALLS[norm], seed=1)
    assert torch.equal(result.minimum_distances, again.minimum_distances)


def test_swaps_become_fewer() -> None:
    attack = SparseRS(queries=10_000)
    swaps = [attack.swaps(number, 100) for number in range(10_000)]
    assert swaps[0] == 40 and swaps[-1] == 4 and sorted(swaps, reverse=True) == swaps
    assert SparseRS(queries=100).swaps(99, 100) == 4 and SparseRS(queries=100).swaps(99, 1) == 1


@given(st.integers(0, 2**31), st.booleans())
@settings(max_examples=20, deadline=None)
def test_soft_margin_leads_where_cross_entropy_does(seed: int, targeted: bool) -> None:
    logits = torch.randn(4, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()
    labels = torch.arange(4)
    goal = Goal(labels, labels + 1 if targeted else None)
    slopes = [torch.autograd.grad(loss(logits, goal).sum(), logits)[0] for loss in (cross_entropy, soft_margin)]
    torch.testing.assert_close(*(nn.functional.normalize(each) for each in slopes))


def test_certain_labels_have_a_slope() -> None:
    """Cross entropy has none in float32 where the other classes are e^100 times less likely."""
    model = linear(100 * torch.eye(2), torch.tensor([100.0, 0.0]))
    image = torch.tensor([1.0, 0.0]).view(1, 1, 1, 2)
    result = DDN().run(model, image, torch.tensor([0]), Ball("L2", 1.4))
    assert result.minimum_distances.isinf().all() and not result.warnings  # (0, 1): a tie, which the first class wins
    model = linear(100 * torch.eye(2), torch.tensor([50.0, 0.0]))
    result = DDN().run(model, image, torch.tensor([0]), Ball("L2", 1.4))
    assert float(result.minimum_distances[0]) == pytest.approx(0.75 * 2**0.5, rel=1e-3)


def test_a_network_with_margins_far_apart() -> None:
    """Scaling the logits by a million changes nothing but rounding."""
    images = random_images(20, 1, 12, 12)
    least = []
    for gain in (1.0, 1e6):
        net = small_net(gain=gain)
        least.append(DDN(soft=0.0).run(net, images, predictions(net, images), Ball("L2", 1.0)).minimum_distances)
    torch.testing.assert_close(*least, rtol=0.02, atol=0)
