"""Prepared models: the same logits and gradients, fewer layers, and models that are better left alone."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from jobs.common.attacks.ball import Ball
from jobs.common.attacks.pgd import PGD
from jobs.common.attacks.prepared import attack_prepared, prepared
from jobs.common.models.classifiers import classifier
from tests.jobs.common.attacks.networks import random_images


@pytest.mark.parametrize(
    ("name", "shape"), [("resnet20", (3, 32, 32)), ("preactivation_resnet18", (3, 16, 16)), ("digits_net", (1, 8, 8))]
)
def test_the_same_within_rounding(name: str, shape: tuple[int, int, int]) -> None:
    images = random_images(6, *shape)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = classifier(name, channels=shape[0])
        model(random_images(20, *shape))  # statistics that are not 0 and 1
    model.eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    ready = prepared(model, images[:2])
    assert isinstance(ready, nn.Module) and ready is not model
    norms = [sum(isinstance(part, nn.BatchNorm2d) for part in each.modules()) for each in (ready, model)]
    assert norms[0] < norms[1]
    assert not any(part.training for part in ready.modules())
    results = []
    for each in (ready, model):
        points = images.clone().requires_grad_()
        logits = each(points)
        (gradient,) = torch.autograd.grad(logits[:, 0].sum(), points)
        assert gradient.is_contiguous()
        results.append((logits.detach(), gradient))
    torch.testing.assert_close(results[0], results[1], rtol=1e-3, atol=1e-4)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("geometry", [(1, 4, 2, 1, 1), (1, 3, 3, 2, 2), (2, 3, 2, 0, 1), (1, 5, 1, 2, 1)])
@pytest.mark.parametrize("side", [9, 40])
def test_gradients_of_few_channels(geometry: tuple[int, ...], side: int) -> None:
    """As one product, for small features, and as products for all places of the kernel."""
    channels, kernel, stride, padding, dilation = geometry
    layer = nn.Conv2d(channels, 12, kernel, stride, padding, dilation)
    model = nn.Sequential(layer, nn.ReLU(), nn.Flatten(), nn.LazyLinear(3))
    images = random_images(5, channels, side, side - 1)
    model(images)
    ready = prepared(model.eval(), images[:2])
    assert ready is not model
    results = []
    for each in (ready, model):
        points = images.clone().requires_grad_()
        logits = each(points)
        results += [logits.detach(), *torch.autograd.grad(logits[:, 0].sum(), points)]
    torch.testing.assert_close(results[:2], results[2:])


def test_a_convolution_that_is_used_twice_stays() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution, self.norm = nn.Conv2d(1, 1, 3, padding=1), nn.BatchNorm2d(1)

        def forward(self, images: Tensor) -> Tensor:
            once = self.convolution(images)
            return (self.norm(once) + self.convolution(once)).flatten(1)  # type: ignore[no-any-return]

    class Branched(Shared):
        def forward(self, images: Tensor) -> Tensor:
            once = self.convolution(images)
            return (self.norm(once) + once).flatten(1)  # type: ignore[no-any-return]

    for kind in (Shared, Branched):
        model = kind()
        model(random_images(8, 1, 6, 6) * 3)
        model.eval()
        images = random_images(4, 1, 6, 6)
        torch.testing.assert_close(prepared(model, images)(images), model(images))


class Cut(nn.Module):
    """A part of the network passes no gradient on, or passes on more than it has. A trace would change that."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.open, self.cut = how, nn.Conv2d(1, 4, 3), nn.Conv2d(1, 4, 3)

    def forward(self, images: Tensor) -> Tensor:
        if self.how == "no_grad":
            with torch.no_grad():
                features = self.cut(images)
        elif self.how == "straight through":
            features = self.cut(StraightThrough.apply(images))
        else:
            features = self.cut(images)
        return (self.open(images) + features).flatten(2).mean(2)  # type: ignore[no-any-return]


class StraightThrough(torch.autograd.Function):
    """Four shades, with the gradient as if there were all."""

    @staticmethod
    def forward(ctx: Any, images: Tensor) -> Tensor:
        return (images * 3).round() / 3

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


@pytest.mark.parametrize("how", ["no_grad", "straight through"])
def test_gradients_stay_as_well(how: str) -> None:
    model, images = Cut(how).eval(), random_images(4, 1, 8, 8)
    whole = Cut("").eval()
    assert prepared(whole, images) is not whole
    gradients: list[Tensor] = []
    for each in (prepared(model, images), model):
        points = images.clone().requires_grad_()
        gradients += torch.autograd.grad(each(points)[:, 0].sum(), points)
    torch.testing.assert_close(*gradients)


def test_a_network_without_gradients_is_used_as_it_is() -> None:
    class CutOff(nn.Module):
        @torch.no_grad()
        def forward(self, images: Tensor) -> Tensor:
            return images.flatten(1)

    model = CutOff().eval()
    assert prepared(model, random_images(2, 1, 4, 4)) is model


def test_what_is_no_module_or_cannot_be_copied_is_used_as_it_is() -> None:
    images = random_images(2, 1, 4, 4)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval()
    model.extra = model[1].weight * 2  # type: ignore[assignment]
    assert prepared(model, images) is model
    function = model.forward
    assert prepared(function, images) is function


def firm(points: Tensor) -> Tensor:
    """Class 0 wherever an attack goes."""
    features = points.flatten(1)[:, :3]
    return features + torch.tensor([1e3, 0.0, 0.0])


def unsure(points: Tensor) -> Tensor:
    """The same, but class 1 where the first pixel is dark."""
    return firm(points) + (points[:, 0, 0, :1] < 0.5) * torch.tensor([0.0, 1e4, 0.0])


def test_only_what_the_model_denies_is_attacked_again() -> None:
    images, labels = random_images(4, 1, 4, 4).clamp(0.1, 0.9), torch.zeros(4, dtype=torch.int64)
    images[:, 0, 0, 0] = torch.tensor([0.9, 0.1, 0.9, 0.1])
    attack = PGD(steps=5)
    search = attack.begin(firm, images, labels, Ball("Linf", 0.02))
    attack_prepared(attack, search, unsure, seed=0)
    result = search.result()
    assert not result.successful.any() and result.minimum_distances.isinf().all()
    assert not search.set_aside.any() and search.model is firm
    assert result.queries.tolist() == [1 + 6, 1 + 1 + 6, 1 + 6, 1 + 1 + 6]
    assert result.gradients.tolist() == [5, 1 + 5, 5, 1 + 5]
    expected = attack.run(firm, images[1::2], labels[1::2], Ball("Linf", 0.02))
    assert torch.equal(result.adversarials[1::2], expected.adversarials), "with the same seed"


def test_what_the_model_alone_calls_a_success_is_one() -> None:
    images, labels = random_images(2, 1, 4, 4), torch.zeros(2, dtype=torch.int64)
    images[:, 0, 0, 0] = 0.505
    attack, ball = PGD(steps=5, random_start=False, loss="margin"), Ball("Linf", 0.02)
    search = attack.begin(unsure, images, labels, ball)
    assert not search.successful.any()
    attack_prepared(attack, search, firm, seed=0)
    result = search.result()
    assert result.successful.tolist() == [True, True] and result.queries.tolist() == [1 + 6, 1 + 6]
    assert torch.equal(result.minimum_distances, result.distances) and (result.distances <= ball.longest).all()
