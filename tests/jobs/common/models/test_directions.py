"""Directions: the rules of every normalisation, what stays, and angles."""

import math

import pytest
import torch
from torch import nn

from jobs.common.models.directions import (
    between,
    check_axes,
    complete,
    cosine,
    length,
    moved,
    random_direction,
    rescale,
)
from jobs.common.models.weights import check_finite, tensors
from service.errors import InputError


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def filters(tensor: torch.Tensor) -> torch.Tensor:
    return torch.stack([row.double().norm() for row in tensor])


def test_filters_have_the_norms_of_those_of_the_weights(make_network):
    weights = tensors(make_network(depth=8), "weights")
    direction = random_direction(weights, "filter", "biasbn", stream())
    for name, weight in weights.items():
        if weight.ndim > 1:
            torch.testing.assert_close(filters(direction[name]), filters(weight), rtol=1e-5, atol=1e-7)
        else:
            assert not direction[name].any(), f"{name} stays where it is"


@pytest.mark.parametrize("normalisation", ["filter", "layer", "weight", "dfilter", "dlayer", "none"])
def test_each_normalisation_is_what_it_says(normalisation):
    noise, weight = torch.randn(4, 3, 2, 2, generator=stream(1)), torch.randn(4, 3, 2, 2, generator=stream(2))
    scaled = rescale(noise, weight, normalisation)
    expected = {
        "filter": torch.stack([d * w.norm() / d.norm() for d, w in zip(noise, weight, strict=True)]),
        "layer": noise * weight.norm() / noise.norm(),
        "weight": noise * weight,
        "dfilter": torch.stack([d / d.norm() for d in noise]),
        "dlayer": noise / noise.norm(),
        "none": noise,
    }[normalisation]
    torch.testing.assert_close(scaled, expected)


@pytest.mark.parametrize("normalisation", ["filter", "layer", "weight"])
def test_filters_of_zeros_stay_zero(normalisation):
    weight = torch.zeros(3, 2)
    assert not rescale(torch.randn(3, 2, generator=stream()), weight, normalisation).any()
    assert torch.isfinite(rescale(torch.zeros(3, 2), torch.ones(3, 2), normalisation)).all()


def test_vectors_are_the_weights_themselves_unless_ignored(make_network):
    weights = tensors(make_network("digits_net"), "states")
    direction = random_direction(weights, "filter", "none", stream())
    vectors = [name for name, weight in weights.items() if weight.ndim <= 1]
    assert any("running_var" in name for name in vectors)
    assert all(torch.equal(direction[name], weights[name]) for name in vectors)


def test_random_directions_are_nearly_orthogonal_and_a_seed_gives_one_direction(make_network):
    weights = tensors(make_network(depth=8), "weights")
    x, y, again = (random_direction(weights, "filter", "biasbn", stream(seed)) for seed in (0, 1, 0))
    count = sum(weight.numel() for weight in weights.values() if weight.ndim > 1)
    assert abs(cosine(x, y)) < 3 / math.sqrt(count)
    assert cosine(x, x) == pytest.approx(1)
    assert all(torch.equal(x[name], again[name]) for name in x)


def test_tied_weights_count_once():
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight
    assert list(tensors(nn.Sequential(first, second), "weights")) == ["0.weight", "0.bias", "1.bias"]


def test_between_two_models_a_step_of_one_leads_from_the_one_to_the_other(make_network):
    start, end = tensors(make_network("digits_net")), tensors(make_network("digits_net", side=16))
    direction = between(start, end, "the other")
    for name, tensor in moved(start, [direction], [1.0]).items():
        torch.testing.assert_close(tensor, end[name])
    with pytest.raises(InputError, match=r"the other is of another architecture: it lacks 'network\.0\.weight'"):
        between(start, tensors(make_network(depth=8)), "the other")
    wide = tensors(make_network("digits_net", width=16))
    with pytest.raises(InputError, match=r"'network.0.weight' is \(16, 1, 3, 3\), not \(8, 1, 3, 3\)"):
        between(start, wide, "the other")


def test_axes_that_span_nothing_are_refused():
    x, zero = {"w": torch.tensor([[1.0, 2.0]])}, {"w": torch.zeros(1, 2)}
    with pytest.raises(InputError, match=r"parallel \(cosine -1\.0"):
        check_axes([x, {"w": -2 * x["w"]}])
    with pytest.raises(InputError, match="direction of y is zero"):
        check_axes([x, zero])
    with pytest.raises(InputError, match="direction of x is not finite"):
        check_axes([{"w": torch.tensor([[math.nan, 1.0]])}])
    assert math.isnan(cosine(x, zero)) and length(zero) == 0


def test_weights_that_have_no_landscape_are_refused():
    with pytest.raises(InputError, match="model: the weights 'w' are not finite"):
        check_finite({"w": torch.tensor([math.inf])}, "model")
    with pytest.raises(InputError, match="'weight' are torch.complex64"):
        tensors(nn.Linear(2, 2, dtype=torch.complex64))


def test_a_direction_that_does_not_fit_is_refused():
    weights = {"w": torch.ones(2, 2), "b": torch.ones(2)}
    assert not complete({"w": torch.ones(2, 2)}, weights)["b"].any()
    with pytest.raises(InputError, match="moves 'v', which the network has not"):
        complete({"v": torch.ones(1)}, weights)
    with pytest.raises(InputError, match=r"'b' is \(3,\), the weights are \(2,\)"):
        complete({"b": torch.ones(3)}, weights)
