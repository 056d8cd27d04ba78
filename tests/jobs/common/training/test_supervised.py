"""Plain training: what it learns, what it keeps, and that a killed one goes on to the same weights."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from jobs.common.data.augmentation import AugmentationParams
from jobs.common.data.images.base import Pixels
from jobs.common.training.optimizers import OptimizerParams
from jobs.common.training.schedules import StepDecay
from jobs.common.training.supervised import SupervisedParams, Training, train
from service import spec
from service.errors import InputError, RunFailedError
from service.run import Run
from service.store import open_store

PARAMS = SupervisedParams(
    epochs=4,
    batch=10,
    keep_every=2,
    optimizer=OptimizerParams(kind="sgd", learning_rate=0.1, nesterov=True, decay=StepDecay(milestones=(2,))),
    augmentation=AugmentationParams(),
)


class Killed(BaseException):
    """As by a signal."""


def images(count: int = 40) -> Pixels:
    stream = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 2
    pixels = torch.randint(0, 100, (count, 1, 4, 4), generator=stream) + 150 * labels.view(-1, 1, 1, 1)
    return Pixels("bright", ["dark", "bright"], pixels.to(torch.uint8), labels)


def network(dropout: float = 0.0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(16), nn.Dropout(dropout), nn.Linear(16, 2))


def handle(folder: Path, report: Any = None) -> Run:
    store = open_store(str(folder)) / "trial"
    return Run(store, 0) if report is None else Run(store, 0, report)


def test_it_learns_and_keeps_what_was_asked(tmp_path):
    training, run = Training("", network(), images(), PARAMS), handle(tmp_path)
    train([training], run)
    assert run.metrics["train_accuracy"] > 0.9
    assert [row["step"] for row in run.rows] == [1, 2, 3, 4]
    assert training.kept_at == [0, 2, 4]
    first, last = training.kept[0], training.kept[-1]
    assert all(torch.equal(tensor, first[name]) for name, tensor in network().state_dict().items())
    assert all(torch.equal(tensor, last[name]) for name, tensor in training.network.state_dict().items())
    assert not training.network.training


def test_a_step_is_that_of_nesterovs_rule(tmp_path):
    """One full batch an epoch, so that the gradients are known: v = m v + g, w = w - r (g + m v)."""
    data = images()
    plain = SupervisedParams(
        epochs=3,
        batch=40,
        optimizer=OptimizerParams(kind="sgd", learning_rate=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
        augmentation=AugmentationParams(),
    )
    torch.manual_seed(0)
    trained = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    weight, bias = (each.detach().clone() for each in trained.parameters())
    velocities = [torch.zeros_like(weight), torch.zeros_like(bias)]
    for _ in range(3):
        leaves = [weight.requires_grad_(), bias.requires_grad_()]
        logits = functional.linear(data.images(torch.arange(40)).flatten(1), *leaves)
        gradients = torch.autograd.grad(functional.cross_entropy(logits, data.labels), leaves)
        moved = []
        for index, (leaf, gradient) in enumerate(zip(leaves, gradients, strict=True)):
            gradient = gradient + 0.01 * leaf.detach()
            velocities[index] = 0.9 * velocities[index] + gradient
            moved.append(leaf.detach() - 0.1 * (gradient + 0.9 * velocities[index]))
        weight, bias = moved
    train([Training("", trained, data, plain)], handle(tmp_path))
    torch.testing.assert_close(list(trained.parameters())[0].detach(), weight)
    torch.testing.assert_close(list(trained.parameters())[1].detach(), bias)


@pytest.mark.parametrize("reports", [1, 3, 5, 7])
def test_a_killed_training_of_two_networks_goes_on_to_the_same_weights(tmp_path, reports):
    params = PARAMS.model_copy(update={"augmentation": AugmentationParams(padding=1, flip=True)})

    def pair() -> list[Training]:
        return [Training(name, network(0.5), images(), params) for name in ("", "x_")]

    def kill(index: int, row: dict[str, float], total: int | None) -> None:
        assert total == 8
        if index == reports:
            raise Killed

    undisturbed, disturbed = pair(), pair()
    train(undisturbed, handle(tmp_path / "undisturbed"))
    with pytest.raises(Killed):
        train(pair(), handle(tmp_path / "disturbed", kill))
    run = handle(tmp_path / "disturbed")
    train(disturbed, run)
    for one, other in zip(undisturbed, disturbed, strict=True):
        assert one.kept_at == other.kept_at
        for name, tensor in one.network.state_dict().items():
            assert torch.equal(tensor, other.network.state_dict()[name])
        assert all(torch.equal(one.kept[1][name], other.kept[1][name]) for name in one.kept[1])
    assert [row["step"] for row in run.rows] == list(range(1, 9))
    pairs = zip(undisturbed[0].network.parameters(), undisturbed[1].network.parameters(), strict=True)
    assert not all(torch.equal(one, other) for one, other in pairs), "each has batches of its own"


def test_what_cannot_be_trained_is_refused(tmp_path):
    with pytest.raises(InputError, match="40 instances does not fill one batch of 41"):
        train([Training("", network(), images(), PARAMS.model_copy(update={"batch": 41}))], handle(tmp_path / "a"))
    often = PARAMS.model_copy(update={"keep_every": 1, "epochs": 10_000_000})
    with pytest.raises(
        InputError, match="training.keep_every must .* at most 2 GB of weights are kept, not .*; it is 1"
    ):
        train([Training("", network(), images(), often)], handle(tmp_path / "b"))
    broken = network()
    with torch.no_grad():
        broken[3].weight.fill_(torch.nan)
    with pytest.raises(RunFailedError, match="stopped being finite between weight updates 1 and 4"):
        train([Training("", broken, images(), PARAMS)], handle(tmp_path / "c"))


def test_the_default_is_the_recipe_of_the_papers_spec() -> None:
    """Rates, weight decay, crops and flips of configs/loss_landscape/resnet56_paper.yaml, over its 300 epochs."""
    path = Path(__file__).parents[4] / "configs" / "loss_landscape" / "resnet56_paper.yaml"
    recipe, default = spec.load(str(path)).params.network.training, SupervisedParams(epochs=300, report_every=5)
    rates = [[each.optimizer.rate(epoch, 300) for epoch in range(300)] for each in (default, recipe)]
    assert rates[0] == rates[1]
    without_decay = [each.optimizer.model_copy(update={"decay": StepDecay()}) for each in (default, recipe)]
    assert without_decay[0] == without_decay[1]
    assert (default.augmentation, default.batch) == (recipe.augmentation, recipe.batch)
