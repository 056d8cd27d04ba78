"""Square: the released code sample by sample, its counters, its windows, and images of every shape."""

import pytest
import torch
from pyautoattack.square import SquareAttack
from torch import Tensor

from jobs.common.attacks.base import Ball
from jobs.common.attacks.prepared import prepared
from jobs.common.attacks.projections import project_l1
from jobs.common.attacks.square import Square
from jobs.common.attacks.square_windows import Stripes, bump
from jobs.common.models.windowed import Windowed
from tests.jobs.common.attacks.linear import LinearDigits
from tests.jobs.common.attacks.networks import in_ball, predictions, random_images, small_net


@pytest.mark.parametrize(("shape", "rescale"), [((1, 9, 16), False), ((3, 17, 14), True), ((1, 8, 8), False)])
@pytest.mark.parametrize(("norm", "epsilon"), [("Linf", 0.05), ("L2", 0.3), ("L1", 4.0)])
def test_the_released_code_sample_by_sample(
    shape: tuple[int, ...], norm: str, epsilon: float, rescale: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the same random stream the same samples break, by the same images.

    In float64: a window that holds nothing but rounding errors is scaled up to the length of epsilon. The released code
    projects onto the L1 ball in float32 all the same, so it is given a projection that does not. Each query in L1
    leaves the two 1e-6 of epsilon apart, which adds up.
    """

    def rest_of_the_way(images: Tensor, differences: Tensor, epsilon: float) -> Tensor:
        return project_l1(images + differences, images, epsilon / (1 - 1e-6)) - images - differences

    monkeypatch.setattr("pyautoattack.square.L1_projection", rest_of_the_way)
    model, images = small_net(shape[0], gain=5).double(), random_images(16, *shape).double()
    labels = predictions(model, images)
    labels[0] = (labels[0] + 1) % 10  # one that is wrong from the start
    reference = SquareAttack(model, norm=norm, n_queries=100, eps=epsilon, seed=3, n_restarts=2, resc_schedule=rescale)
    with torch.random.fork_rng():
        expected = reference.perturb(images, labels)
    attack = Square(queries=100, restarts=2, rescale=rescale)
    found = attack.run(model, images, labels, Ball(norm, epsilon), seed=3)  # type: ignore[arg-type]
    assert found.successful.tolist() == (predictions(model, expected) != labels).tolist()
    rows = found.successful
    tolerance = {"Linf": 1e-6, "L2": 1e-4, "L1": 1e-3}[norm]
    torch.testing.assert_close(found.adversarials[rows], expected[rows], rtol=0, atol=tolerance)
    assert rows.sum() >= 2


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("side", [3, 4, 5, 8, 13])
def test_bumps_of_the_released_code(side: int, power: int) -> None:
    reference = SquareAttack(None, norm=f"L{power}", eps=1.0)
    reference.device = torch.device("cpu")
    with torch.random.fork_rng():
        for seed in range(6):
            torch.manual_seed(seed)
            transposed = bool(torch.rand(1) > 0.5)
            torch.manual_seed(seed)
            torch.testing.assert_close(bump(side, transposed, power), reference.eta(side))


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 7, 20), (2, 19, 6), (1, 3, 3), (1, 1, 1), (3, 30, 2)])
def test_every_query_is_in_ball_and_box(norm: str, shape: tuple[int, ...]) -> None:
    net, images = small_net(shape[0]), random_images(6, *shape).round(decimals=1)
    ball = Ball(norm, 0.3)  # type: ignore[arg-type]
    asked: list[Tensor] = []

    def model(points: Tensor) -> Tensor:
        asked.append(points.clone())
        return net(points)

    labels = predictions(net, images)
    found = Square(queries=60).run(model, images, labels, ball)
    for points in asked:
        assert points.amin() >= 0 and points.amax() <= 1
        if len(points) == len(images):
            assert in_ball(points, images, ball)
    assert in_ball(found.adversarials, images, ball)
    assert sum(map(len, asked)) == int(found.queries.sum())


def test_the_books_are_exact(digits: LinearDigits) -> None:
    """Wrong from the start: one query. A robust one: the clean one, the start, and one for each window."""
    found = Square(queries=40).run(digits.model, digits.images, digits.labels, Ball("Linf", 0.05))
    wrong = predictions(digits.model, digits.images) != digits.labels
    assert (found.queries[wrong] == 1).all() and (found.distances[wrong] == 0).all()
    assert (found.queries[~found.successful] == 42).all()
    late = found.successful & ~wrong
    assert ((found.queries[late] >= 2) & (found.queries[late] <= 42)).all()
    assert not found.gradients.any()
    assert (predictions(digits.model, found.adversarials)[found.successful] != digits.labels[found.successful]).all()


@pytest.mark.parametrize(("norm", "epsilon"), [("Linf", 0.05), ("L2", 0.4), ("L1", 2.0)])
def test_never_below_the_exact_robust_accuracy(norm: str, epsilon: float, digits: LinearDigits) -> None:
    ball = Ball(norm, epsilon)  # type: ignore[arg-type]
    found = Square(queries=400).run(digits.model, digits.images[:150], digits.labels[:150], ball)
    certain = digits.robust(norm, epsilon)[:150]
    assert not (found.successful & certain).any(), "no attack succeeds on a robust sample"
    assert found.successful.sum() > (predictions(digits.model, digits.images) != digits.labels)[:150].sum()


def test_margins_never_fall_and_restarts_only_help(digits: LinearDigits) -> None:
    ball = Ball("Linf", 0.05)
    one, more = (
        Square(queries=20, restarts=restarts).run(digits.model, digits.images, digits.labels, ball)
        for restarts in (1, 4)
    )
    assert (more.successful | ~one.successful).all() and more.successful.sum() > one.successful.sum()
    short, long = (
        Square(queries=queries).run(digits.model, digits.images, digits.labels, Ball("Linf", 0.02))
        for queries in (5, 50)
    )
    robust = ~long.successful
    logits = digits.model(torch.stack([short.adversarials[robust], long.adversarials[robust]]).flatten(0, 1)).detach()
    label = digits.labels[robust].repeat(2)[:, None]
    margins = (logits.scatter(1, label, -torch.inf).amax(1) - logits.gather(1, label)[:, 0]).view(2, -1)
    assert (margins[1] >= margins[0] - 1e-5).all() and (margins[1] > margins[0]).any()


def test_targets_are_met() -> None:
    model, images = small_net(gain=20), random_images(20, 1, 12, 12)
    labels = predictions(model, images)
    targets = model(images).detach().topk(2).indices[:, 1]
    found = Square(queries=200).run(model, images, labels, Ball("Linf", 0.3), targets=targets)
    assert found.successful.sum() >= 3
    assert (predictions(model, found.adversarials)[found.successful] == targets[found.successful]).all()


def test_the_schedule_of_the_sheet() -> None:
    """Halved after 10, 50, 200, ... windows; in proportion to 10,000 if rescaled."""
    areas = Square(queries=8002).areas()
    for first, halvings in ((0, 0), (10, 0), (11, 1), (50, 1), (51, 2), (201, 3), (501, 4), (1001, 5), (2001, 6)):
        assert areas[first] == 0.8 / 2**halvings
    assert areas[8000] == 0.8 / 256 and areas[8001] == 0.8 / 512
    rescaled = Square(queries=100, rescale=True).areas()
    assert rescaled[0] == 0.8 and rescaled[1] == 0.8 / 4 and rescaled[99] == 0.8 / 512


def test_the_last_row_is_in_no_small_window() -> None:
    """So in the released code."""
    images = torch.full((1, 1, 6, 6), 0.5)
    state = Stripes(images, Ball("Linf", 0.1), [0.1] * 300, torch.Generator().manual_seed(0))
    covered = {(row + state.sides[0], column + state.sides[0]) for row, column in state.corners}
    assert max(row for row, _ in covered) == 5 and max(column for _, column in covered) == 5


def test_windows_of_a_prepared_model_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passes that compute only what a window changes: the same samples break, by the same images."""
    model, images = small_net(3, gain=5), random_images(12, 3, 32, 32)
    labels = predictions(model, images)
    ready, attack, ball = prepared(model, images[:2]), Square(queries=120, p_init=0.05), Ball("Linf", 0.02)
    windowed = []
    monkeypatch.setattr("jobs.common.models.windowed.SAVED", 1.0)
    monkeypatch.setattr(
        Windowed, "accept", lambda self, better, accept=Windowed.accept: windowed.append(accept(self, better))
    )
    found = attack.run(ready, images, labels, ball)
    assert len(windowed) > 100
    expected = attack.run(model, images, labels, ball)
    assert 2 <= found.successful.sum() <= 10
    assert torch.equal(found.successful, expected.successful) and torch.equal(found.queries, expected.queries)
    assert torch.equal(found.adversarials, expected.adversarials)
