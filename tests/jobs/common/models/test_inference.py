"""Networks for passes without gradients: the same logits from fewer operations, and networks that are left alone."""

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, fx, nn

from jobs.common.models import graph, inference
from jobs.common.models.fused_convolution import FEW_PLACES, LINEAR, MANY_CHANNELS, FusedConvolution, can_fuse
from jobs.common.models.inference import FusedTransposed, Inference, for_inference

needs_fusion = pytest.mark.skipif(not can_fuse(), reason="this torch has no fused convolutions")


class Network(nn.Module):
    """Two convolutions of three channels, and what a function makes of them and of the images."""

    def __init__(self, make: Callable[["Network", Tensor], Tensor]) -> None:
        super().__init__()
        self.make = make
        self.one, self.two = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(2))
        self.norm, self.relu, self.pool = nn.BatchNorm2d(3), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1)
        self.up = nn.ConvTranspose2d(3, 3, 3, 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.make(self, images)


def kept(network: Network, images: Tensor) -> Tensor:
    one = network.one(images)
    return network.two(one) + one * one + 2 * (one + network.two.weight.sum())  # type: ignore[no-any-return]


def needed_later(network: Network, images: Tensor) -> Tensor:
    """The summand is read after the sum, and so is a part of it."""
    one = network.one(images)
    part = one[:, :1]
    after = network.two(images)
    after += one
    return after * one + part  # type: ignore[no-any-return]


def written_over(network: Network, images: Tensor) -> Tensor:
    """The sum is written where another name looks at it, which a trace does not know."""
    one = network.one(images)
    part = one[:, :1]
    one += network.two(images)
    return one + part  # type: ignore[no-any-return]


def repeated(network: Network, images: Tensor) -> Tensor:
    """Of one size where images are of one pixel alone."""
    return network.pool(images) + network.one(images)  # type: ignore[no-any-return]


def norms(network: Network, images: Tensor) -> Tensor:
    return torch.cat([images, network.relu(network.norm(images * 2))], dim=1)


def transposed(network: Network, images: Tensor) -> Tensor:
    one = network.one(images)
    size = nn.functional.interpolate(one, scale_factor=2.0).shape[2:]
    return network.relu(network.norm(network.up(one, output_size=size)))  # type: ignore[no-any-return]


def build(make: Callable[[Network, Tensor], Tensor]) -> Network:
    torch.manual_seed(0)
    network = Network(make)
    network.norm(torch.randn(8, 3, 5, 5) * 2 + 1)  # statistics that are not 0 and 1
    for parameter in network.norm.parameters():
        nn.init.normal_(parameter)
    return network.eval()


@needs_fusion
@pytest.mark.parametrize(("make", "sums"), [(kept, 0), (needed_later, 1), (repeated, 0), (norms, 0), (transposed, 0)])
def test_the_same_at_any_size(make: Callable[[Network, Tensor], Tensor], sums: int) -> None:
    network = build(make)
    before = {name: each.clone() for name, each in network.state_dict().items()}
    few, state = torch.rand(1, 3, *((1, 1) if make is repeated else (8, 6))), torch.get_rng_state()
    ready = for_inference(network, few)
    assert torch.equal(torch.get_rng_state(), state), "random numbers were drawn"
    kinds = {type(each) for each in ready.modules()}
    assert FusedConvolution in kinds and nn.BatchNorm2d not in kinds
    assert (FusedTransposed in kinds) == (make is transposed)
    for size in ((8, 6), (13, 7), (1, 1)):
        images = torch.rand(2, 3, *size)
        with torch.no_grad():
            torch.testing.assert_close(ready(images), network(images))
    assert all(torch.equal(each, before[name]) for name, each in network.state_dict().items())
    traced = ready.network
    assert isinstance(traced, fx.GraphModule)
    assert sum(node.op == "call_module" and len(node.args) == 2 for node in traced.graph.nodes) == sums


@needs_fusion
@pytest.mark.parametrize("with_sum", [False, True])
def test_gradients_of_a_convolution_that_nothing_follows(with_sum: bool) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(5, 6, 3, stride=2)
    fused = FusedConvolution(layer, torch.Size((2, 5, 9, 8)), LINEAR)
    images, other = torch.randn(2, 5, 9, 8, requires_grad=True), torch.randn(2, 6, 4, 3, requires_grad=True)
    results = []
    for after in (layer(images) + other * with_sum, fused(images, other) if with_sum else fused(images)):
        results.append([after.detach(), *torch.autograd.grad(after.square().sum(), images)])
    torch.testing.assert_close(results[1], results[0])


@needs_fusion
@pytest.mark.parametrize("stride", [1, 2])
def test_gradients_of_few_places_are_those_of_the_whole(stride: int) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(MANY_CHANNELS, 6, 3, stride=stride, padding=1)
    images, after = torch.randn(2, MANY_CHANNELS, 9, 7, requires_grad=True), nn.LeakyReLU(0.1)
    counted = torch.zeros(2, 1, *after(layer(images)).shape[2:])
    counted[0, :, -1, -1] = counted[1, :, 1, 2:4] = counted[1, :, 0, 0] = 1  # neighbours, and corners
    assert counted.mean() < FEW_PLACES
    slopes = [
        torch.autograd.grad((each * counted).square().sum(), images)[0]
        for each in (after(layer(images)), FusedConvolution(layer, slope=0.1, sparse=True)(images))
    ]
    torch.testing.assert_close(slopes[1], slopes[0])


@needs_fusion
def test_where_no_place_has_a_gradient_there_is_none() -> None:
    """As in a search for a patch, once nobody is found."""
    images = torch.randn(2, MANY_CHANNELS, 9, 7, requires_grad=True)
    output = FusedConvolution(nn.Conv2d(MANY_CHANNELS, 6, 3), sparse=True)(images)
    (slope,) = torch.autograd.grad((output * 0).sum(), images)
    assert slope.shape == images.shape and not slope.any()


@needs_fusion
def test_weights_are_laid_out_anew_for_features_of_another_shape() -> None:
    """A layout made for others is right as well, but slow."""
    layer = nn.Conv2d(64, 96, 1)
    fused = FusedConvolution(layer, torch.Size((1, 64, 4, 4)))
    with torch.no_grad():
        for size in ((1, 64, 4, 4), (3, 64, 20, 7), (1, 64, 4, 4)):
            features = torch.randn(size)
            torch.testing.assert_close(fused(features), layer(features).relu())
            assert fused._laid_out is not None and fused._laid_out[0] == features.shape


def test_a_batch_norm_becomes_a_part_of_a_transposed_convolution_and_of_a_direction() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.ConvTranspose2d(3, 4, 3, stride=2), nn.BatchNorm2d(4))
    network(torch.randn(8, 3, 5, 5) * 2 + 1)
    axis = {f"0.{name}": torch.randn_like(each) for name, each in network[0].named_parameters()}
    traced, images = graph.trace(copy.deepcopy(network.eval()).requires_grad_(False)), torch.rand(2, 3, 4, 5)
    assert traced is not None
    (folded,) = graph.fold(traced, [axis])
    assert len(traced.graph.nodes) == 3
    with torch.no_grad():
        for _ in range(2):
            torch.testing.assert_close(traced(images), network(images))
            for each, moves in ((network, axis), (traced, folded)):
                for name, step in moves.items():
                    each.get_parameter(name).add_(step)


def test_networks_that_are_used_as_they_are() -> None:
    images = torch.rand(1, 3, 6, 6)
    random = build(lambda network, images: network.one(images) + torch.rand_like(images))
    branched = build(lambda network, images: network.one(images if bool(images.sum() > 0) else -images))
    tied = build(lambda network, images: network.one(images))
    tied.extra = tied.one.weight * 2
    too_small = build(lambda network, images: network.up(images, output_size=[2, 2]))
    for network in (random, branched, tied, too_small, build(written_over)):
        assert for_inference(network, images) is network


def test_passes_over_few_pixels_are_those_of_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "LARGE", 100)
    network = build(needed_later)
    ready = Inference(network)
    with torch.no_grad():
        few, many = torch.rand(1, 3, 9, 11), torch.rand(2, 3, 5, 10)
        assert torch.equal(ready(few), network(few)) and ready._ready is None
        torch.testing.assert_close(ready(many), network(many))
        assert ready._ready is not None and torch.equal(ready(many), ready._ready(many))
        assert torch.equal(ready(few), network(few))


def test_a_trace_leaves_other_threads_alone() -> None:
    class Waits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 1, 1)

        def forward(self, images: Tensor) -> Tensor:
            with ThreadPoolExecutor(1) as pool:
                answers.append(pool.submit(other, pixels).result())
            return self.layer(images)  # type: ignore[no-any-return]

    answers: list[Tensor] = []
    other, pixels = build(kept), torch.rand(1, 3, 4, 4)
    traced = graph.trace(Waits())
    assert traced is not None and [node.op for node in traced.graph.nodes] == ["placeholder", "call_module", "output"]
    assert torch.equal(answers[0], other(pixels))
