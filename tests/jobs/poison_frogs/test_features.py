"""Features: what goes into the last linear layer, functional ReLUs and all, and networks that have none."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from jobs.common.models.classifiers.alexnet import LocalResponse, alexnet
from jobs.common.models.classifiers.small import digits_16_net
from jobs.poison_frogs.features import Features, check_alive
from service.errors import InputError

IMAGES = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))


class Functional(nn.Module):
    """Its ReLU is no layer, its head is made first, and it can misbehave."""

    def __init__(self, oddity: str = "") -> None:
        super().__init__()
        self.oddity = oddity
        self.head, self.body = nn.Linear(6, 3), nn.Linear(64, 6)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        hidden = functional.relu(self.body(images.flatten(1)))
        logits = self.head(hidden)
        match self.oddity:
            case "several outputs":
                return logits, hidden
            case "softmax":
                return logits.softmax(1)
            case "branches":
                return logits if bool(images.sum() > 0) else self.head(-hidden)
            case "called twice":
                return self.head(hidden + logits.mean())
        return logits


def test_a_functional_relu_is_part_of_the_features():
    network = Functional()
    features = Features(network, IMAGES[:1])
    expected = functional.relu(network.body(IMAGES.flatten(1)))
    assert torch.equal(features(IMAGES), expected) and bool((expected == 0).any())
    assert features.size == 6 and features.last is network.head, "the last that is called, not the last that was made"
    logits, (blocks,) = features.forward(IMAGES)
    assert torch.allclose(logits, network.head(expected)) and torch.equal(blocks, expected)
    found, answers = features.of(lambda rows: IMAGES[rows], torch.tensor([4, 2]))
    assert torch.allclose(found, expected[[4, 2]]) and torch.allclose(answers, logits[[4, 2]])


def test_named_layers_are_taken_one_after_another():
    network = digits_16_net(classes=3, channels=1, side=8, size=16)
    features = Features(network, IMAGES[:1], ("2", "7"))
    first = network[:3](IMAGES)
    assert features.sizes == [32 * 4 * 4, 16] and features(IMAGES).shape == (5, 32 * 16 + 16)
    assert torch.equal(features.blocks(IMAGES)[0], first.flatten(1))
    with pytest.raises(InputError, match="the network has no 'conv9'"):
        Features(network, IMAGES[:1], ("conv9",))


@pytest.mark.parametrize("layers", [(), ("2", "7")])
def test_prepared_features_and_their_gradients_are_the_same(layers):
    network = digits_16_net(classes=3, channels=1, side=8, size=16)
    features = Features(network, IMAGES[:1], layers)
    ready = features.prepared(IMAGES)
    assert ready is not features
    pulls = torch.randn(5, features.size, generator=torch.Generator().manual_seed(1))
    for one in (features, ready):
        points = IMAGES.clone().requires_grad_()
        values = one(points)
        (gradient,) = torch.autograd.grad((values * pulls).sum(), points)
        if one is features:
            expected, slopes = values, gradient
    torch.testing.assert_close(values, expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(gradient, slopes, rtol=1e-3, atol=1e-6)
    assert torch.equal(features(IMAGES), expected), "the network itself is as it was"


def test_a_network_that_cannot_be_prepared_gives_its_features_as_it_is():
    branching = Functional("branches")
    written_over = nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.ReLU(inplace=True), nn.Linear(6, 3))
    nested = nn.Sequential(nn.Flatten(), nn.Sequential(nn.Linear(64, 6), nn.ReLU()), nn.Linear(6, 3))
    for network, layers in ((branching, ()), (written_over, ("1",)), (nested, ("1",))):
        features = Features(network, IMAGES[:1], layers)
        assert features.prepared(IMAGES) is features


@pytest.mark.parametrize(
    ("oddity", "sentence"),
    [
        ("several outputs", "answers with a tuple: one tensor of logits is wanted"),
        ("softmax", "does not end in a linear layer"),
        ("called twice", "is called 2 times in one pass"),
    ],
)
def test_networks_without_a_feature_layer_are_refused(oddity, sentence):
    with pytest.raises(InputError, match=sentence):
        Features(Functional(oddity), IMAGES[:1])


def test_dead_features_are_refused():
    network = Functional()
    nn.init.constant_(network.body.bias, -100.0)
    with pytest.raises(InputError, match="zero for every image"):
        Features(network, IMAGES[:1]).of(lambda rows: IMAGES[rows], torch.arange(5))
    with pytest.raises(InputError, match="not finite"):
        check_alive(torch.tensor([[1.0, torch.nan]]))


def test_local_response_is_that_of_torch():
    images = torch.randn(2, 12, 5, 5, generator=torch.Generator().manual_seed(1)) * 20
    expected = nn.LocalResponseNorm(9, alpha=1e-3, beta=0.75, k=1.0)(images)
    torch.testing.assert_close(LocalResponse(12)(images), expected, rtol=1e-5, atol=1e-5)


def test_the_papers_network_has_192_features():
    images = torch.rand(2, 3, 32, 32)
    network = alexnet(classes=10, channels=3)
    assert Features(network, images[:1]).size == 192 and network(images).shape == (2, 10)
    assert network[9].in_features == 4096
