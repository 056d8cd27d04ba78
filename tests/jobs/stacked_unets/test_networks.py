"""Stacked u-nets against the counts of the paper's code; sizes, strides, gradients; and what they are compared with."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from jobs.common.estimation import layer_work
from jobs.common.models.classifiers import classifier
from jobs.common.models.classifiers.sunet import PLANS, StackedUNets, UNet
from jobs.stacked_unets.networks import ARCHITECTURES, TORCHVISION, segmenter
from service.errors import InputError


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def gmacs(network: nn.Module, side: int) -> float:
    return sum(layer.macs for layer in layer_work(network, torch.empty(1, 3, side, side, device="meta"))) / 1e9


@pytest.mark.parametrize(
    ("name", "whole", "backbone", "at_224", "at_512"),
    [
        ("sunet64", 6_910_248, 5_885_248, 2.53, {32: 13.2, 16: 14.0, 8: 24.7}),
        ("sunet128", 24_704_360, 22_655_360, 7.36, {32: 38.4, 16: 41.7, 8: 84.3}),
        ("sunet7_128", 39_113_832, 36_808_832, 10.17, {32: 53.0, 16: 57.6, 8: 130.1}),
    ],
)
def test_parameters_and_multiplications_are_those_of_the_released_code(
    name: str, whole: int, backbone: int, at_224: float, at_512: dict[int, float]
) -> None:
    with torch.device("meta"):
        network: Any = classifier(name)
        assert parameters(network) == whole and parameters(network.network.backbone) == backbone
        assert gmacs(network, 224) == pytest.approx(at_224, abs=0.006)
        for stride, expected in at_512.items():
            assert gmacs(StackedUNets(PLANS[name], 3, stride), 512) == pytest.approx(expected, abs=0.06)


def test_the_small_ones_have_about_as_many_weights() -> None:
    tiny, plain = (parameters(segmenter(name, classes=7)) for name in ("sunet_tiny", "plain"))
    assert tiny == 173_799 and abs(plain - tiny) < 0.03 * tiny


@pytest.mark.parametrize(
    ("stride", "sides"), [(32, (128, 64, 32, 16)), (16, (128, 64, 32, 32)), (8, (128, 64, 64, 64))]
)
def test_the_stages_have_the_sides_of_the_paper(stride: int, sides: tuple[int, ...]) -> None:
    found = []
    with torch.device("meta"):
        network = StackedUNets(PLANS["sunet64"], 3, stride)
        for stage in network.stages:
            stage.register_forward_hook(lambda _, __, output: found.append(output.shape[-1]))
        network(torch.empty(1, 3, 512, 512))
    assert tuple(found) == sides


def test_dilations_are_multigrid() -> None:
    """Of output stride 8: the last two stages; the rest has none."""

    def dilations(unet: nn.Module) -> list[int]:
        three = [each for each in unet.modules() if getattr(each, "kernel_size", 0) == (3, 3)]
        assert {each.stride[0] for each in three} <= ({1} if three[0].dilation[0] > 1 else {1, 2})
        assert all(each.padding == each.dilation for each in three)
        return [each.dilation[0] for each in three]

    network = StackedUNets(PLANS["sunet64"], 3, 8)
    unets = [[each for each in stage.modules() if isinstance(each, UNet)] for stage in network.stages]
    assert [dilations(unet) for unet in unets[1]] == [[1] * 8] * 4
    # down 0, down 1, up 0, up 1
    assert [dilations(unet) for unet in unets[2]] == [[2, 4, 4, 8, 4, 2, 8, 4]] * 4
    assert [dilations(unet) for unet in unets[3]] == [[4, 8, 8, 4]]


def test_all_strides_share_one_state() -> None:
    images = torch.rand(2, 3, 40, 56)
    first: Any = segmenter("sunet_tiny", classes=4, output_stride=32)
    answers = []
    for stride in (32, 16, 8):
        other: Any = segmenter("sunet_tiny", classes=4, output_stride=stride)
        other.load_state_dict(first.state_dict())
        answers.append(other.eval()(images))
        assert answers[-1].shape == (2, 4, 40, 56)
    assert not torch.allclose(answers[0], answers[1]) and not torch.allclose(answers[1], answers[2])


@pytest.mark.parametrize("stride", [32, 16, 8])
@pytest.mark.parametrize("size", [(1, 1), (33, 47), (65, 101), (3, 90)])
def test_any_size_has_an_answer_of_that_size(stride: int, size: tuple[int, int]) -> None:
    network = segmenter("sunet_tiny", classes=3, output_stride=stride, head="degridding").eval()
    with torch.no_grad():
        answer = network(torch.rand(1, 3, *size))
    assert answer.shape == (1, 3, *size) and bool(answer.isfinite().all())


def test_sides_of_the_features_are_rounded_up() -> None:
    for stride in (32, 16, 8):
        network = StackedUNets(replace(PLANS["sunet_tiny"], stem=(16, 7, 2)), 3, stride).eval()
        for height, width in ((33, 353), (416, 64), (100, 257)):
            with torch.no_grad():
                last = network(torch.rand(1, 3, height, width)).shape[2:]
            assert last == (-(-height // stride), -(-width // stride)), (stride, height, width)


@pytest.mark.parametrize("name", ["sunet_tiny", "plain"])
def test_gradients_reach_every_parameter(name: str) -> None:
    network = segmenter(name, classes=3).train()
    target = torch.randint(3, (2, 44, 38))
    nn.functional.cross_entropy(network(torch.rand(2, 3, 44, 38)), target).backward()  # type: ignore[no-untyped-call]
    for key, parameter in network.named_parameters():
        # a bias that batch norm takes away again has a gradient of rounding errors, but has one
        assert parameter.grad is not None and bool(parameter.grad.isfinite().all()), key
        if parameter.ndim > 1:
            assert float(parameter.grad.abs().max()) > 0, key


def test_a_symmetric_unet_equals_its_formula() -> None:
    """One level, strided: written out with torch's functions."""
    torch.manual_seed(0)
    unet: Any = UNet(5, 7, 4, 1, 0).eval()
    active = torch.rand(1, 5, 9, 12)
    functional = nn.functional

    def activated(features: torch.Tensor, layer: Any) -> torch.Tensor:
        return layer[2](functional.relu(layer[0](features)))

    inner = unet.reduce(active)
    down = activated(activated(inner, unet.down[0][0]), unet.down[0][1])
    assert down.shape == (1, 4, 5, 6)
    up: Any = unet.up[0]
    weight, bias = up.transposed.weight, up.transposed.bias
    larger = functional.conv_transpose2d(functional.relu(up.norm(down)), weight, bias, 2, 1, (0, 1))
    expected = activated(activated(larger, up.convolution), unet.expand)
    torch.testing.assert_close(unet(active), expected)


@pytest.mark.parametrize("name", TORCHVISION)
def test_networks_of_torchvision_equal_their_own_answers(name: str) -> None:
    from torchvision.models import segmentation

    if "resnet101" in name:
        pytest.skip("as resnet50, twice as slow")
    with torch.device("meta"):
        ours: Any = segmenter(name, classes=5)
        theirs = getattr(segmentation, name)(weights=None, weights_backbone=None, num_classes=5)
        assert parameters(ours) == parameters(theirs)
        assert ours.eval()(torch.empty(1, 3, 65, 50)).shape == (1, 5, 65, 50)
    if "mobilenet" in name:
        ours, theirs = segmenter(name, classes=5).eval(), theirs.to_empty(device="cpu").eval()
        theirs.load_state_dict({key.removeprefix("network."): value for key, value in ours.state_dict().items()})
        images = torch.rand(1, 3, 65, 50)
        with torch.no_grad():
            expected = theirs.to(memory_format=torch.channels_last)(ours.normalise(images))["out"]
            torch.testing.assert_close(ours(images), expected, rtol=1e-3, atol=1e-4)


def test_segmentation_models_by_name() -> None:
    network = segmenter("segmentation_models", classes=3, decoder="FPN", encoder="resnet18").eval()
    with torch.no_grad():
        assert network(torch.rand(1, 3, 64, 32)).shape == (1, 3, 64, 32)
    with pytest.raises(InputError, match="decoder 'Nonet'"):
        segmenter("segmentation_models", classes=3, decoder="Nonet")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"output_stride": 4}, "output_stride must be 32, 16 or 8; it is 4"),
        ({"head": "deep"}, "head must be linear or degridding; it is 'deep'"),
        ({"classes": 1}, "classes must be from 2"),
        ({"depth": 3}, "refuses its arguments"),
    ],
)
def test_arguments_out_of_range_are_named(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        segmenter("sunet_tiny", **arguments)
    assert "sunet64" in ARCHITECTURES
