"""Rays: what moves, by how much, and that a seed is a ray."""

import math

import pytest
import torch
from torch import nn

from jobs.common.models.weights import tensors
from jobs.generalization.basins.rays import filters_of, rays
from jobs.generalization.basins.stacked_loss import Layout
from service.errors import InputError


def state_of(network: nn.Module) -> tuple[Layout, torch.Tensor]:
    layout = Layout({name: tensor.shape for name, tensor in tensors(network).items()})
    return layout, layout.flatten(tensors(network))


def test_each_filter_moves_by_its_norm_and_nothing_else_moves(make_network):
    network = make_network("digits_net")
    layout, centre = state_of(network)
    filters = filters_of(network)
    drawn = rays(filters, centre, "filter", None, [3, 4], cap=0.7)
    weights, count, entries = tensors(network, "weights"), 0, 0
    for name, moves in layout.unflatten(drawn.directions).items():
        if name in weights and moves.ndim > 2:
            norms = moves.flatten(2).double().norm(dim=2)
            expected = weights[name].flatten(1).double().norm(dim=1)
            torch.testing.assert_close(norms, expected.expand(2, -1), rtol=1e-5, atol=1e-7)
            count, entries = count + moves.shape[1], entries + weights[name].numel()
        else:
            assert not moves.any(), f"{name} stays"
    assert (filters.count, filters.n) == (count, entries)
    assert drawn.caps.tolist() == [0.7, 0.7]
    torch.testing.assert_close(drawn.lengths, drawn.directions.double().norm(dim=1), rtol=1e-5, atol=0)
    torch.testing.assert_close(drawn.slopes, (drawn.directions @ centre).double(), rtol=1e-3, atol=1e-3)


def test_gaussian_rays_have_length_one_in_units_of_the_filters(make_network):
    network = make_network("digits_net")
    _, centre = state_of(network)
    filters = filters_of(network)
    drawn = rays(filters, centre, "gaussian", None, [0, 1, 2], cap=0.5)
    scaled = drawn.directions[:, filters.where].double() / filters.norms
    torch.testing.assert_close(scaled.norm(dim=1), torch.ones(3).double(), rtol=1e-6, atol=0)
    assert drawn.caps.tolist() == pytest.approx([0.5 * math.sqrt(filters.count)] * 3)
    own = float(sum(math.log(norm) for norm in filters.norms.tolist()))
    assert filters.log_scale == pytest.approx(own)


def test_caps_of_preconditioned_rays_bound_the_same_weights():
    network = nn.Linear(3, 2)
    _, centre = state_of(network)
    filters = filters_of(network)
    spread = torch.tensor([0.1, 1, 10, 2, 0.5, 1]).double()
    drawn = rays(filters, centre, "adam", spread, [5, 6], cap=0.5)
    ends = drawn.caps[:, None] * drawn.directions[:, filters.where].double() / filters.norms
    torch.testing.assert_close(ends.norm(dim=1), torch.full((2,), 0.5 * math.sqrt(2)).double(), rtol=1e-6, atol=0)


def test_a_seed_is_a_ray_whatever_rays_are_beside_it():
    network = nn.Linear(4, 3)
    _, centre = state_of(network)
    many = rays(filters_of(network), centre, "filter", None, [7, 8, 9], cap=1)
    one = rays(filters_of(network), centre, "filter", None, [8], cap=1)
    assert torch.equal(many.directions[1:2], one.directions)


def test_filters_of_zeros_stay_and_are_counted():
    network = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    with torch.no_grad():
        network[0].weight[1] = 0
    layout, centre = state_of(network)
    filters = filters_of(network)
    assert (filters.zero, filters.count, filters.n) == (1, 5, 17)
    moves = layout.unflatten(rays(filters, centre, "gaussian", None, [0], cap=1).directions)
    assert not moves["0.weight"][0, 1].any() and moves["0.weight"][0, 2].all()
    with torch.no_grad():
        for weight in network.parameters():
            weight.zero_()
    with pytest.raises(InputError, match="not zero; the network has none"):
        filters_of(network)


def test_tied_weights_move_once():
    network = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    network[1].weight = network[0].weight
    assert filters_of(network).n == 9
