"""Losses of many weights at once against one network at a time."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from jobs.common.mean_loss.losses import cross_entropy
from jobs.common.models.classifiers import classifier
from jobs.common.models.weights import tensors
from jobs.generalization.basins import stacked_loss
from jobs.generalization.basins.stacked_loss import StackedLoss
from service.errors import InputError


def mlp(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 3))


def data(shape: tuple[int, ...] = (6,), count: int = 30, classes: int = 3) -> tuple[Tensor, Tensor]:
    stream = torch.Generator().manual_seed(1)
    return torch.rand(count, *shape, generator=stream), torch.randint(0, classes, (count,), generator=stream)


def one_by_one(network: nn.Module, points: Tensor, inputs: Tensor, labels: Tensor, loss: StackedLoss) -> list[float]:
    losses = []
    for point in points:
        own = copy.deepcopy(network).eval()
        state = {name: tensor[0] for name, tensor in loss.layout.unflatten(point[None]).items()}
        own.load_state_dict(state, strict=False)
        with torch.no_grad():
            losses.append(float(functional.cross_entropy(own(inputs), labels)))
    return losses


def single() -> nn.Module:
    """With normalisation, tanh and one output, as classifiers of points of the plane have."""
    options = {"side": 1, "hidden": [5, 4], "single": True, "mean": [0.5, 0.4], "std": [0.1, 0.2]}
    return classifier("fully_connected", classes=2, channels=2, **options)


class Branching(nn.Module):
    """Decides by its numbers what to do, which stacks cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = mlp()

    def forward(self, inputs: Tensor) -> Tensor:
        logits = self.inner(inputs)
        return logits if float(logits.sum()) > 0 else 2 * logits


@pytest.mark.parametrize("kind", ["mlp", "single", "batch norm", "branching"])
def test_losses_are_those_of_one_network_at_a_time(kind, make_network, monkeypatch):
    make = {"mlp": mlp, "single": single, "batch norm": lambda: make_network("digits_net"), "branching": Branching}
    network = make[kind]()
    inputs, labels = {"single": data((2, 1, 1), 30, 2), "batch norm": data((1, 8, 8), 30, 10)}.get(kind, data())
    loss = StackedLoss(network.train(), inputs, labels, cross_entropy)
    stream = torch.Generator().manual_seed(2)
    points = loss.centre * (1 + 0.2 * torch.rand(5, loss.layout.size, generator=stream))
    expected = one_by_one(network, points, inputs, labels, loss)
    assert loss(points).tolist() == pytest.approx(expected, rel=1e-5)
    monkeypatch.setattr(stacked_loss, "BATCH_ROOM", 8 << 10)  # the images in several batches
    monkeypatch.setattr(stacked_loss, "ROOM", 1)  # one point after another
    small = StackedLoss(network, inputs, labels, cross_entropy)
    assert small.together == 1
    assert small(points).tolist() == pytest.approx(expected, rel=1e-5)


def test_networks_of_one_architecture_are_evaluated_together():
    inputs, labels = data()
    loss = StackedLoss(mlp(), inputs, labels, cross_entropy)
    networks = [mlp(seed) for seed in range(4)]
    points = torch.stack([loss.layout.flatten(tensors(network)) for network in networks])
    with torch.no_grad():
        expected = [float(functional.cross_entropy(network(inputs), labels)) for network in networks]
    assert loss(points).tolist() == pytest.approx(expected, rel=1e-5)
    along = loss.along(points, torch.zeros_like(points), torch.tensor([2, 0]), torch.ones(2).double())
    assert along.tolist() == pytest.approx([expected[2], expected[0]], rel=1e-5)


@pytest.mark.parametrize("kind", ["mlp", "batch norm"])
def test_gradients_are_those_of_autograd_on_the_chosen_images(kind, make_network):
    inputs, labels = data((1, 8, 8), 30, 10) if kind == "batch norm" else data()
    network = make_network("digits_net") if kind == "batch norm" else mlp()
    loss = StackedLoss(network, inputs, labels, cross_entropy)
    chosen = torch.tensor([3, 4, 11])
    losses, gradients = loss.gradients(torch.stack([loss.centre, 2 * loss.centre]), chosen)
    value = functional.cross_entropy(network(inputs[chosen]), labels[chosen])
    value.backward()
    expected = loss.layout.embed({name: each.grad for name, each in network.named_parameters()})
    assert losses[0].item() == pytest.approx(value.item(), rel=1e-5)
    torch.testing.assert_close(gradients[0], expected, rtol=1e-4, atol=1e-6)


def test_tied_weights_move_together():
    network = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    network[1].weight = network[0].weight
    inputs, labels = data((3,))
    loss = StackedLoss(network, inputs, labels, cross_entropy)
    points = torch.stack([loss.centre, loss.centre + 0.1])
    with torch.no_grad():
        for each in {network[0].weight, network[0].bias, network[1].bias}:
            each += 0.1
        assert loss(points)[1].item() == pytest.approx(float(cross_entropy(network(inputs), labels).mean()), rel=1e-5)


def test_what_has_no_mean_is_refused():
    inputs, labels = data()
    with pytest.raises(InputError, match="as many targets as inputs: 29 and 30"):
        StackedLoss(mlp(), inputs, labels[:29], cross_entropy)
    with pytest.raises(InputError, match="one number for each of 60 inputs"):
        loss = StackedLoss(mlp(), inputs, labels, lambda logits, labels: logits)
        loss(loss.centre.expand(2, -1))
