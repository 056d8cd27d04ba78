"""The losses against plain loops, and training that is killed and goes on to the same weights."""

from typing import Any

import pytest
import torch
from torch.nn import functional

from jobs.common.training.engine import CPU
from jobs.deep_thinking.data import FixedSet, FreshBatches
from jobs.deep_thinking.networks import network
from jobs.deep_thinking.problems import problem
from jobs.deep_thinking.training import Draw, cross_entropy, draw, exact, groups, loss, train
from service.errors import InputError, RunFailedError
from tests.jobs.killed import KilledAtReport


def built(seed: int = 0, name: str = "dt_net_1d", channels: int = 1, **arguments: Any):
    torch.manual_seed(seed)
    return network(name, channels=channels, width=8, **arguments)


def test_draws_cover_exactly_what_the_paper_says():
    m = 5
    drawn = {draw(m, seed) for seed in range(600)}
    assert drawn == {Draw(n, k) for n in range(m) for k in range(1, m - n + 1)}


def test_draws_are_uniform_in_n():
    counts = torch.bincount(torch.tensor([draw(4, seed).skipped for seed in range(4000)]), minlength=4)
    assert (counts / 4000 - 0.25).abs().max() < 0.03


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_the_loss_is_the_papers(alpha):
    """Against both losses written out as loops, gradients included."""
    prefix_sums, net = problem("prefix_sums"), built()
    inputs, targets = prefix_sums.sample(7, 5, seed=1)
    drawn = Draw(skipped=2, counted=1)

    features = net.start(inputs)
    for iteration in range(2):
        features = net.step(features, inputs, iteration)
    progressive = functional.cross_entropy(net.answer(net.step(features.detach(), inputs, 2)), targets)
    features = net.start(inputs)
    for iteration in range(4):
        features = net.step(features, inputs, iteration)
    full = functional.cross_entropy(net.answer(features), targets)
    expected = alpha * progressive + (1 - alpha) * full
    gradients = torch.autograd.grad(expected, list(net.parameters()))

    value, _ = loss(net, prefix_sums, inputs, targets, 4, alpha, drawn)
    value.backward()
    assert value.item() == pytest.approx(expected.item(), rel=1e-6)
    for parameter, gradient in zip(net.parameters(), gradients, strict=True):
        mine = torch.zeros_like(gradient) if parameter.grad is None else parameter.grad
        torch.testing.assert_close(mine, gradient)


def test_without_skipped_iterations_the_projection_learns():
    prefix_sums, net = problem("prefix_sums"), built()
    value, _ = loss(net, prefix_sums, *prefix_sums.sample(7, 5, seed=1), 4, 1.0, Draw(0, 2))
    value.backward()
    assert net.projection.weight.grad.abs().sum() > 0


def test_the_loss_of_a_maze_is_over_open_pixels_alone():
    mazes, net = problem("mazes", scale=1), built(name="dt_net_2d", channels=3)
    inputs, targets = mazes.sample(5, 4, seed=0)
    logits, _ = net(inputs, 3)
    counted = inputs.amax(1) > 0
    by_hand = [
        functional.cross_entropy(logits[i, :, row, column][None], targets[i, row, column][None]).item()
        for i, row, column in counted.nonzero().tolist()
    ]
    assert cross_entropy(logits, targets, counted).item() == pytest.approx(sum(by_hand) / len(by_hand), rel=1e-5)


def test_exact_means_every_position_that_counts():
    targets = torch.tensor([[0, 1, 1], [0, 1, 1], [0, 1, 1]])
    answers = torch.tensor([[0, 1, 1], [0, 1, 0], [1, 1, 1]])
    counted = torch.tensor([[True, True, True], [True, True, True], [False, True, True]])
    logits = functional.one_hot(answers, 2).movedim(-1, 1).float()
    assert exact(logits, targets, counted).tolist() == [True, False, True]


def test_only_recurrent_parameters_are_throttled(tiny):
    (full, others), (slow, recurrent) = groups(built(recall=True), tiny)
    assert (full, slow) == (1.0, 1 / tiny.iterations)
    assert len(recurrent) == 5 and len(others) == 4
    assert groups(built(name="feed_forward_1d", max_iterations=4), tiny)[1][1] == []


@pytest.mark.parametrize("data", [FreshBatches(updates=12, validation=20), FixedSet(instances=32, epochs=4)])
def test_killed_and_resumed_is_the_same_as_undisturbed(make_run, tiny, data):
    params = tiny.model_copy(update={"data": data})
    prefix_sums = problem("prefix_sums")
    undisturbed, run = built(), make_run("undisturbed")
    train(undisturbed, prefix_sums, params, run)
    with pytest.raises(KeyboardInterrupt):
        train(built(), prefix_sums, params, make_run("killed", kind=KilledAtReport))
    resumed, again = built(seed=1), make_run("killed")
    train(resumed, prefix_sums, params, again)
    for one, other in zip(resumed.parameters(), undisturbed.parameters(), strict=True):
        assert torch.equal(one, other)
    assert again.rows == run.rows
    assert [row["step"] for row in run.rows] == [4, 8, 12]


def test_fixed_data_is_split_as_in_the_paper(make_run):
    """80 % to train on, in an order of its own in each epoch, the short last batch left out; no overlap."""
    data = FixedSet(instances=50, epochs=3).open(problem("prefix_sums"), 10, 12, make_run(), CPU)
    assert (data.updates, data.updates_per_tick) == (9, 3)
    trained = {tuple(row) for step in range(9) for row in data.batch(step)[0][:, 0].tolist()}
    held_out = {tuple(row) for row in data.validation[0][:, 0].tolist()}
    assert len(held_out) == 10 and len(trained) > 36 and not trained & held_out
    assert not torch.equal(data.batch(0)[0], data.batch(3)[0])
    assert torch.equal(data.batch(0)[0], data.batch(0)[0])


def test_a_set_smaller_than_a_batch_is_refused(make_run):
    with pytest.raises(InputError, match="does not fill one batch of 12"):
        FixedSet(instances=10).open(problem("prefix_sums"), 10, 12, make_run(), CPU)


def test_fresh_batches_never_repeat(make_run):
    data = FreshBatches(updates=5, validation=4).open(problem("prefix_sums"), 40, 4, make_run(), CPU)
    assert not torch.equal(data.batch(0)[0], data.batch(1)[0])
    assert not torch.equal(data.batch(0)[0], data.validation[0])


def test_a_loss_that_is_not_finite_ends_the_trial(make_run, tiny):
    net = built()
    with torch.no_grad():
        net.projection.weight.fill_(float("nan"))
    with pytest.raises(RunFailedError, match="loss is nan: .* between weight updates 1 and 4.*learning_rate"):
        train(net, problem("prefix_sums"), tiny, make_run())


def test_a_network_learns(make_run, tiny):
    """Four bits are learnt in a few seconds: the loss falls from chance (ln 2) to near zero."""
    params = tiny.model_copy(
        update={
            "size": 4,
            "batch": 16,
            "data": FreshBatches(updates=250, validation=16),
            "throttle": False,
            "alpha": 1.0,
        }
    )
    run = make_run()
    train(built(), problem("prefix_sums"), params, run)
    assert run.rows[0]["val_loss"] > 0.5
    assert run.metrics["val_accuracy"] > 0.9
