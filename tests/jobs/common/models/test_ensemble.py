"""Networks that are computed together: each as it is alone, forward and along its training."""

from typing import Any

import pytest
import torch
from torch.nn import functional

from jobs.common.models.classifiers import classifier
from jobs.common.models.ensemble import Ensemble, check_no_statistics
from jobs.common.training.optimizers import OptimizerParams
from service.errors import InputError


def networks(count: int, **options: Any) -> list[torch.nn.Module]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        options = {"classes": 3, "channels": 2, "hidden": [8, 5]} | options
        return [classifier("fully_connected", **options) for _ in range(count)]


@pytest.mark.parametrize("single", [False, True])
def test_each_says_what_it_says_alone(single: bool) -> None:
    """Also those of one output, which is no layer that has weights."""
    alone = networks(4, mean=[0.5, 0.5], std=[0.1, 0.1], single=single, classes=2 if single else 3)
    ensemble = Ensemble(alone[0], [each.state_dict() for each in alone])
    images = torch.rand(7, 2, 1, 1)
    expected = torch.stack([each(images) for each in alone])
    torch.testing.assert_close(ensemble(images), expected, rtol=1e-4, atol=1e-5)
    for network, state in zip(alone, ensemble.states(), strict=True):
        assert all(torch.equal(state[name], weight) for name, weight in network.named_parameters())


@pytest.mark.parametrize("kind", ["adam", "rmsprop", "sgd"])
def test_each_learns_as_it_does_alone(kind: Any) -> None:
    alone = networks(3)
    ensemble = Ensemble(alone[0], [each.state_dict() for each in alone])
    rule = OptimizerParams(kind=kind, learning_rate=1e-2, weight_decay=1e-3)
    images, labels = torch.rand(9, 2, 1, 1), torch.arange(9) % 3

    together = rule.build([(1.0, list(ensemble.parameters()))])
    for _ in range(5):
        together.zero_grad()
        logits = ensemble(images)
        functional.cross_entropy(logits.flatten(0, 1), labels.repeat(3), reduction="sum").div(9).backward()
        together.step()
    for network, state in zip(alone, ensemble.states(), strict=True):
        optimizer = rule.build([(1.0, list(network.parameters()))])
        for _ in range(5):
            optimizer.zero_grad()
            functional.cross_entropy(network(images), labels).backward()
            optimizer.step()
        for name, weight in network.named_parameters():
            torch.testing.assert_close(state[name], weight.detach(), rtol=1e-3, atol=1e-5)


class Dropping(torch.nn.Module):
    """No chain of linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(2, 50), torch.nn.Dropout())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.layers(images)
        return answer


def test_each_draws_its_own_dropout() -> None:
    network = Dropping()
    ensemble = Ensemble(network, [network.state_dict()] * 2)
    images = torch.rand(7, 2, 1, 1)
    first, second = ensemble.train()(images)
    assert not torch.equal(first, second)
    first, second = ensemble.eval()(images)
    assert torch.equal(first, second)
    torch.testing.assert_close(first, network.eval()(images), rtol=1e-4, atol=1e-5)


def test_what_cannot_be_computed_together() -> None:
    with pytest.raises(InputError, match="must be without batch norm; this one has 'network.1'"):
        check_no_statistics(classifier("digits_net", classes=2))
    first, other = networks(1)[0], classifier("fully_connected", classes=3, channels=2, hidden=[8, 6])
    with pytest.raises(InputError, match="network 1 is of another architecture"):
        Ensemble(first, [first.state_dict(), other.state_dict()])
