"""Classifiers: the published sizes, what each layer does, and arguments that are refused."""

from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from jobs.common.models.classifiers import ARCHITECTURES, Classifier, classifier
from jobs.common.models.classifiers.normalisation import IMAGENET_MEAN, IMAGENET_STD
from jobs.common.models.classifiers.wide_resnet import SameConvolution
from service.errors import InputError, UnknownNameError
from service.models import load, publish
from service.store import open_store
from tests.jobs.shared import draft

SIDES = {
    "digits_net": 8,
    "digits_16_net": 16,
    "softmax_regression": 8,
    "mlp": 8,
    "fully_connected": 1,
    "quadratic_regression": 8,
    "stem_net": 8,
    "inception_v3": 299,
    "fast_mnist": 28,
    "madry_mnist": 28,
    "trades_mnist": 28,
}
NARROW: dict[str, dict[str, Any]] = {  # the same structure with few channels
    "cifar_resnet50": {"width": 4},
    "cifar_resnet18": {"width": 4, "shortcuts": False},
    "preactivation_resnet18": {"width": 4},
    "wide_resnet": {"depth": 14, "width": 2},
    "vgg9": {"width": 8},
    "vgg13": {"width": 8},
    "densenet121": {"width": 4},
    "resnet20": {},
    "cifar_resnet": {"depth": 20, "shortcuts": False},
    "digits_net": {},
    "digits_16_net": {},
    "softmax_regression": {},
    "mlp": {"width": 16},
    "fully_connected": {"hidden": [16, 8]},
    "quadratic_regression": {"small": 4},
    "stem_net": {},
    "fast_mnist": {},
    "madry_mnist": {"width": 4},
    "trades_mnist": {"width": 4},
    "colour_net": {},
}


def build(name: str, seed: int = 0, **arguments: Any) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return classifier(name, **arguments)


def channels_of(name: str) -> int:
    return 1 if name in SIDES and name != "inception_v3" else 3


def images_for(name: str, count: int = 4) -> Tensor:
    side = SIDES.get(name, 32)
    return torch.rand(count, channels_of(name), side, side, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("name", "arguments", "count"),
    [
        ("wide_resnet", {}, 45_901_914),  # Shafahi et al. 2019: WRN-32-10
        ("wide_resnet", {"depth": 20, "width": 1}, 269_722),  # Huang et al. 2020
        ("resnet20", {}, 272_474),  # from here on the networks of Li et al. 2018, instantiated
        ("resnet20", {"shortcuts": False}, 269_722),
        ("resnet56", {}, 855_770),
        ("resnet56", {"shortcuts": False}, 853_018),
        ("resnet110", {}, 1_730_714),
        ("resnet110", {"shortcuts": False}, 1_727_962),
        ("cifar_resnet", {"depth": 50, "shortcuts": False}, 755_802),
        ("vgg9", {}, 2_789_706),
        ("vgg13", {}, 9_416_010),
        ("densenet121", {}, 6_956_298),
        ("resnet50", {}, 25_557_032),  # torchvision's table of weights
        ("wide_resnet50_2", {}, 68_883_240),
    ],
)
def test_parameters(name: str, arguments: dict[str, Any], count: int) -> None:
    with torch.device("meta"):
        assert sum(each.numel() for each in classifier(name, **arguments).parameters()) == count


# parameters in millions and multiply-adds an image in millions, of the code released with Li et al. 2018
@pytest.mark.parametrize(
    ("name", "arguments", "millions", "multiply_adds"),
    [
        ("vgg9", {}, 2.79, 191.6),
        ("resnet20", {}, 0.27, 40.8),
        ("resnet20", {"shortcuts": False}, 0.27, 40.6),
        ("resnet56", {}, 0.86, 125.8),
        ("resnet110", {"shortcuts": False}, 1.73, 252.9),
        ("resnet56", {"width": 2}, 3.41, 502),
        ("resnet56", {"width": 4, "shortcuts": False}, 13.59, None),
        ("resnet56", {"width": 8}, 54.47, 8023),
        ("densenet121", {}, 6.96, 888),
        ("cifar_resnet18", {}, 11.17, 555),
        ("cifar_resnet50", {}, 23.52, 1298),
    ],
)
def test_work(name: str, arguments: dict[str, Any], millions: float, multiply_adds: float | None) -> None:
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        network = classifier(name, **arguments).eval()
        network(torch.empty(1, 3, 32, 32))
    assert sum(each.numel() for each in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.006)
    if multiply_adds is not None:
        assert counter.get_total_flops() / 2e6 == pytest.approx(multiply_adds, rel=2e-3)


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_images_in_logits_out(name: str) -> None:
    """Also of other sizes and channels than those of the papers."""
    side, channels = SIDES.get(name, 32), channels_of(name)
    arguments = (
        {} if name.startswith(("resnet", "wide_resnet50", "sunet", "inception")) else {"channels": (channels := 2)}
    )
    if name in ("alexnet", "digits_16_net", "fast_mnist", "madry_mnist", "trades_mnist", "vgg9"):
        arguments["side"] = side = 36
    with torch.device("meta"), torch.no_grad():
        network = classifier(name, classes=7, **arguments).eval()
        assert isinstance(network, Classifier)
        assert network(torch.empty(2, channels, side, side)).shape == (2, 7)


@pytest.mark.parametrize(("name", "arguments"), NARROW.items())
def test_gradients_reach_every_parameter(name: str, arguments: dict[str, Any]) -> None:
    network, images = build(name, **arguments), images_for(name).requires_grad_()
    nn.functional.cross_entropy(network(images), torch.arange(4)).backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.isfinite().all()), key
        assert parameter.ndim == 1 or bool(parameter.grad.any()), key
    assert images.grad is not None and bool(images.grad.flatten(1).any(1).all())


def test_the_same_seed_makes_the_same_network() -> None:
    one, same, other = (build("resnet20", seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not torch.equal(one["network.head.weight"], other["network.head.weight"])


# ---- normalisation --------------------------------------------------------------------------------------------------


def test_each_channel_has_its_own_constants() -> None:
    mean, std = [0.1, 0.2, 0.3], [0.5, 0.6, 0.7]
    plain, normalised = build("colour_net").eval(), build("colour_net", mean=mean, std=std).eval()
    images = images_for("colour_net")
    expected = plain(torchvision.transforms.functional.normalize(images, mean, std))
    torch.testing.assert_close(normalised(images), expected)
    assert normalised.state_dict().keys() == plain.state_dict().keys(), "the constants are no weights"


def test_an_image_is_standardised_as_pixels_0_to_255_are() -> None:
    normalise = classifier("wide_resnet", depth=8, width=1).normalise
    images = torch.cat([images_for("wide_resnet"), torch.full((1, 3, 32, 32), 0.5), torch.zeros(1, 3, 32, 32)])
    images[4, 0, 0, 0] += 1e-4  # nearly constant: the bound on the deviation counts
    pixels = 255 * images.double().numpy()
    mean, std = pixels.mean((1, 2, 3), keepdims=True), pixels.std((1, 2, 3), keepdims=True)
    expected = (pixels - mean) / np.maximum(std, 1 / np.sqrt(3 * 32 * 32))
    images.requires_grad_()
    found = normalise(images)
    np.testing.assert_allclose(found.detach(), expected, atol=1e-3)
    found.square().sum().backward()
    assert images.grad is not None and bool(images.grad.isfinite().all())


# ---- families -------------------------------------------------------------------------------------------------------


def literal_convolution(features: np.ndarray, kernel: np.ndarray, stride: int) -> np.ndarray:
    """TensorFlow's SAME, written out: as many outputs as ceil(side / stride), and half of the padding, rounded down,
    before the first pixel. features: (batch, channels, side, side); kernel: (out, in, 3, 3)."""
    batch, _, side, _ = features.shape
    outputs = -(-side // stride)
    before = max((outputs - 1) * stride + 3 - side, 0) // 2
    result = np.zeros((batch, len(kernel), outputs, outputs))
    for row in range(outputs):
        for column in range(outputs):
            for down in range(3):
                for right in range(3):
                    y, x = row * stride + down - before, column * stride + right - before
                    if 0 <= y < side and 0 <= x < side:
                        result[:, :, row, column] += features[:, :, y, x] @ kernel[:, :, down, right].T
    return result


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("side", [4, 5, 8])
def test_padding_is_that_of_tensorflow(side: int, stride: int) -> None:
    torch.manual_seed(0)
    layer, features = SameConvolution(2, 3, stride), torch.randn(2, 2, side, side)
    expected = literal_convolution(features.double().numpy(), layer.weight.detach().double().numpy(), stride)
    np.testing.assert_allclose(layer(features).detach(), expected, atol=1e-5)


def test_the_wide_network_written_out() -> None:
    """Two units a stage: the shared activation of the first unit, pooled and padded shortcuts, batch norm."""
    network = build("wide_resnet", depth=14, width=2, classes=5).network
    stream = torch.Generator().manual_seed(2)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert (module.eps, module.momentum) == (1e-3, 0.1)
            for values in (module.weight, module.bias, module.running_mean, module.running_var):
                values.data.uniform_(0.5, 1.5, generator=stream)
    state = {key: value.double().numpy() for key, value in network.state_dict().items()}
    images = torch.randn(2, 3, 8, 8, generator=stream)

    def activated(features: np.ndarray, key: str) -> np.ndarray:
        column = {
            part: state[f"{key}.{part}"][:, None, None] for part in ("weight", "bias", "running_mean", "running_var")
        }
        scaled = (features - column["running_mean"]) / np.sqrt(column["running_var"] + 0.001)
        normed = scaled * column["weight"] + column["bias"]
        return np.where(normed < 0, 0.1 * normed, normed)

    features = literal_convolution(images.double().numpy(), state["stem.weight"], 1)
    for unit, (channels, stride) in enumerate([(32, 1), (32, 1), (64, 2), (64, 1), (128, 2), (128, 1)]):
        active = activated(features, f"units.{unit}.norm1")
        inner = literal_convolution(active, state[f"units.{unit}.conv1.weight"], stride)
        inner = activated(inner, f"units.{unit}.norm2")
        branch = literal_convolution(inner, state[f"units.{unit}.conv2.weight"], 1)
        shortcut = active if unit == 0 else features
        if shortcut.shape[1] != channels:
            side = shortcut.shape[2] // stride
            pooled = shortcut.reshape(2, -1, side, stride, side, stride).mean((3, 5))
            half = np.zeros((2, (channels - pooled.shape[1]) // 2, side, side))
            shortcut = np.concatenate([half, pooled, half], axis=1)
        features = branch + shortcut
    expected = activated(features, "norm").mean((2, 3)) @ state["head.weight"].T + state["head.bias"]
    np.testing.assert_allclose(network.eval()(images).detach(), expected, atol=1e-4)


def test_the_wide_network_begins_with_the_published_deviations() -> None:
    network = build("wide_resnet", depth=8, width=4).network
    for module in network.modules():
        if isinstance(module, SameConvolution):
            assert float(module.weight.detach().std()) == pytest.approx((2 / (9 * module.out_channels)) ** 0.5, rel=0.1)
    bound = (3 / network.head.in_features) ** 0.5
    assert 0.95 * bound < float(network.head.weight.detach().abs().max()) <= bound and not network.head.bias.any()


def test_the_two_initialisations() -> None:
    kaiming, torchs = (build("resnet20", initialisation=name).network for name in ("kaiming", "torch"))
    weight = kaiming.stages[2][1].branch[0].weight.detach()  # 64 channels to 64
    assert float(weight.std()) == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.02)
    assert float(kaiming.head.weight.detach().std()) == pytest.approx(1e-3, rel=0.1) and not kaiming.head.bias.any()
    bound = (1 / (9 * 64)) ** 0.5  # uniform, as the layers of torch are when they are made
    assert float(torchs.stages[2][1].branch[0].weight.detach().abs().max()) == pytest.approx(bound, rel=1e-3)


def test_torchvisions_network_behind_the_normalisation() -> None:
    network = build("resnet18", classes=7).eval()
    reference = torchvision.models.resnet18(num_classes=7).eval()
    reference.load_state_dict(network.network.state_dict())
    images = torch.rand(2, 3, 64, 64)
    normalised = torchvision.transforms.functional.normalize(images, list(IMAGENET_MEAN), list(IMAGENET_STD))
    torch.testing.assert_close(network(images), reference(normalised))


@pytest.mark.parametrize("shortcuts", [True, False])
def test_shortcuts_carry_the_features_past_dead_branches(shortcuts: bool) -> None:
    network = build("cifar_resnet", depth=8, shortcuts=shortcuts).network.eval()
    block = network.stages[0][0]
    nn.init.zeros_(block.branch[0].weight)
    features = torch.randn(2, 16, 8, 8)
    expected = features.relu() if shortcuts else torch.zeros_like(features)
    assert torch.equal(block(features), expected)


def test_one_stage_of_many_blocks() -> None:
    network = build("cifar_resnet", channels=1, blocks=[18], first=12)
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    assert len(layers) == 38 and {layer.out_channels for layer in layers[:-1]} == {12}
    assert network(torch.rand(2, 1, 8, 8)).shape == (2, 10)


def test_a_classifier_comes_back_from_the_store(store_uri: str) -> None:
    store, network = open_store(store_uri), build("digits_net", mean=[0.3], std=[0.4]).eval()
    arguments = {"mean": [0.3], "std": [0.4]}
    written = draft("jobs.common.models.classifiers:digits_net", arguments)
    card = publish(store, "digits", dict(network.state_dict()), written)
    images = images_for("digits_net")
    assert torch.equal(load(store, card)(images), network(images))


# ---- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "arguments", "sentence"),
    [
        ("digits_net", {"depth": 3}, "'digits_net' refuses its arguments"),
        ("resnet20", {"classes": 1}, "classes must be from 2 to 16,384; it is 1"),
        ("resnet20", {"channels": 0}, "channels must be from 1"),
        ("resnet20", {"width": -1}, "width must be from 1"),
        ("cifar_resnet", {"depth": 6 * 10**8 + 2}, "depth must be from 1 to 16,384; it is 600,000,002"),
        ("cifar_resnet", {"depth": 21}, "depth must be 6n + 2: 8, 14, 20, 26, …; it is 21"),
        ("cifar_resnet", {"blocks": [3, 0]}, "blocks must be at least 1 in each stage; it is [3, 0]"),
        ("resnet20", {"initialisation": "zeros"}, "initialisation must be kaiming or torch; it is 'zeros'"),
        ("wide_resnet", {"depth": 28}, "depth must be 6n + 2: 8, 14, 20, 26, 32, …; it is 28"),
        ("cifar_resnet18", {"depth": 19}, "refuses its arguments"),
        ("resnet50", {"channels": 1, "mean": [0.5], "std": [0.5]}, "channels must be 3 for resnet50; it is 1"),
        ("colour_net", {"mean": [0.5] * 3}, "give both or neither"),
        ("colour_net", {"mean": [0.5], "std": [0.5]}, "1 and 1 values for 3 channels"),
        ("colour_net", {"mean": [0.5] * 3, "std": [0.5, 0.5, 0.0]}, "std above 0"),
        ("colour_net", {"mean": [float("nan")] * 3, "std": [0.5] * 3}, "finite"),
        ("wide_resnet", {"mean": [0.5] * 3, "std": [0.5] * 3}, "per_image is on"),
        ("trades_mnist", {"side": 8}, "side must be at least 14; it is 8"),
        ("fast_mnist", {"side": 3}, "side must be at least 4; it is 3"),
        ("collections:OrderedDict", {}, "is a OrderedDict, not a torch module"),
    ],
)
def test_arguments_that_are_refused(name: str, arguments: dict[str, Any], sentence: str) -> None:
    with torch.device("meta"), pytest.raises(InputError) as caught:
        classifier(name, **arguments)
    assert sentence in str(caught.value)


def test_unknown_names_suggest_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'wide_resnet'"):
        classifier("wideresnet")


def test_wide_networks_refuse_sides_that_cannot_be_halved_twice() -> None:
    with pytest.raises(InputError, match="sides of images must be multiples of 4 for a wide_resnet; they are 30x30"):
        classifier("wide_resnet", depth=8, width=1)(torch.rand(1, 3, 30, 30))
