"""A network that listens: its layers by name, parts of it, what its card may not say."""

from typing import Any

import pytest
import torch
from torch.nn import functional

from jobs.common.audio.networks import ARCHITECTURES
from jobs.common.audio.networks.base import OUTPUT, channels_of
from jobs.common.audio.networks.recogniser import MEAN, SPREAD, Block, Recogniser
from service.errors import FieldError, InputError, UnknownNameError

SMALL: dict[str, Any] = {"bands": 16, "channels": (6, 8), "kernels": (3, 5), "strides": (1, 2), "rate": 8_000}


def network() -> Recogniser:
    built = ARCHITECTURES["recogniser"](["yes", "no", "maybe"], **SMALL)
    assert isinstance(built, Recogniser)
    built.train()(0.1 * torch.randn(8, 4000))  # statistics of batch norm
    return built.eval()


def test_it_is_what_it_says() -> None:
    net, sounds = network(), 0.1 * torch.randn(2, 4000)
    mels = (net.stages["mel"](sounds) - MEAN) / SPREAD
    first, second = (net.stages[name] for name in ("conv1", "conv2"))
    features = first[2](functional.conv1d(mels, first[1].weight, padding=1))
    answers = net.activations(sounds, ["conv1", "conv2"])
    torch.testing.assert_close(answers["conv1"], features)
    features = second[2](functional.conv1d(features.relu(), second[1].weight, stride=2, padding=2))
    torch.testing.assert_close(answers["conv2"], features)
    linear = net.stages[OUTPUT].linear
    torch.testing.assert_close(net(sounds), functional.linear(features.relu().mean(2), linear.weight, linear.bias))


def test_layers_are_listed_and_computing_may_begin_and_end_at_any() -> None:
    net, sounds = network(), 0.1 * torch.randn(1, 4000)
    assert net.layers == ("mel", "conv1", "conv2", OUTPUT)
    assert channels_of(net, 4000) == {"mel": 16, "conv1": 6, "conv2": 8, OUTPUT: 3}
    mels = net.activations(sounds, ["mel"])["mel"]
    whole, rest = net.activations(sounds, ["conv2"]), net.activations(mels, ["conv2"], after="mel")
    assert torch.equal(whole["conv2"], rest["conv2"])
    net.stages[OUTPUT].linear = None  # what is not needed is not computed
    net.activations(sounds, ["conv1", "conv2"])


@pytest.mark.parametrize("layer", ["mel", "conv1", "conv2", OUTPUT])
def test_what_each_row_asks_for_is_that_of_all_channels(layer: str) -> None:
    net, sounds, numbers = network(), (0.1 * torch.randn(4, 3990)).requires_grad_(), torch.tensor([2, 0, 2, 1])
    every = net.activations(sounds, [layer])[layer]
    directions = torch.randn(4, every.shape[1])
    mels = net.activations(sounds, ["mel"])["mel"]
    for expected, ask, features in (
        (every[torch.arange(4), numbers], net.channels, numbers),
        ((every * directions[:, :, None]).sum(1), net.along, directions),
    ):
        answers = [ask(sounds, layer, features)]
        if layer != "mel":
            answers.append(ask(mels, layer, features, after="mel"))
        slopes = torch.linspace(-1, 1, expected.numel()).view_as(expected)
        (gradient,) = torch.autograd.grad(expected, sounds, slopes, retain_graph=True)
        for answer in answers:
            torch.testing.assert_close(answer, expected, rtol=1e-5, atol=1e-5)
            (slope,) = torch.autograd.grad(answer, sounds, slopes, retain_graph=True)
            torch.testing.assert_close(slope, gradient, rtol=1e-5, atol=1e-5 * float(gradient.abs().max()))


def test_a_batch_is_computed_as_the_layers_say() -> None:
    net, sounds = network(), (0.1 * torch.randn(3, 4000)).requires_grad_()
    expected = sounds
    for stage in net.stages.values():
        for each in stage if isinstance(stage, Block) else [stage]:
            expected = each(expected)
    answers = net.activations(sounds, [OUTPUT])[OUTPUT]
    torch.testing.assert_close(answers, expected, rtol=1e-5, atol=1e-5)
    (gradient,), (slope,) = (torch.autograd.grad(each.square().sum(), sounds) for each in (expected, answers))
    torch.testing.assert_close(slope, gradient, rtol=1e-5, atol=1e-5 * float(gradient.abs().max()))


def test_what_it_has_not_is_said_with_what_it_has() -> None:
    with pytest.raises(UnknownNameError, match="conv3.*it has mel, conv1, conv2, output"):
        network().activations(torch.zeros(1, 4000), ["conv3"])
    with pytest.raises(InputError, match="must last at least"):
        network().check_length(10)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"rate": 10}, "rate must be from 4,000"),
        ({"bands": 10**9}, "bands must be from 1 to 1,024"),
        ({"channels": ()}, "channels must be from 1 to 50"),
        ({"kernels": (3,)}, "kernels must be 2, as channels are"),
        ({"kernels": (3, 4)}, "kernels must be odd"),
        ({"strides": (0, 1)}, "strides must be from 1"),
        ({"channels": (10**9, 4)}, "channels must be from 1 to 16,384"),
    ],
)
def test_a_strangers_card_may_say_anything(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(FieldError, match=sentence):
        Recogniser(["a", "b"], **{**SMALL, **change})
