"""Weights that move along a direction: the middle is the network itself, the curvature that of the full Hessian."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from jobs.common.models.classifiers import classifier
from jobs.generalization.wiggle import Path as Wiggling
from jobs.generalization.wiggle import curvature, measured_at
from jobs.generalization.wiggle_params import WiggleParams


def subject() -> tuple[Any, Any, Any]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = classifier("fully_connected", classes=2, channels=2, hidden=[4]).eval()
        return network, torch.rand(12, 2, 1, 1), torch.arange(12) % 2


def test_places_are_dense_in_the_middle_and_reach_half_the_span() -> None:
    places = WiggleParams(frames=5, span=2.0).places
    np.testing.assert_allclose(places, [-1, -(0.5**5), 0, 0.5**5, 1])


def test_the_middle_is_the_network_itself() -> None:
    network, images, labels = subject()
    direction = {name: torch.ones_like(weight) for name, weight in network.named_parameters()}
    path = Wiggling(network, direction, images, labels, images[:5], labels[:5], 6, 0)
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    middle, moved = measured_at(0.0, path), measured_at(0.3, path)
    assert middle["loss"] == pytest.approx(float(functional.cross_entropy(network(images), labels).detach()), rel=1e-5)
    assert middle["accuracy"] == float((network(images).argmax(1) == labels).double().mean())
    assert all(torch.equal(weight, before[name]) for name, weight in network.state_dict().items())
    assert moved["loss"] != middle["loss"] and moved["map"].shape == (2, 6, 6)


def test_curvature_is_the_largest_eigenvalue_in_units_of_the_filters_norms() -> None:
    network, images, labels = subject()
    weights = {name: weight.detach() for name, weight in network.named_parameters() if weight.ndim > 1}
    scale = torch.cat([weight.norm(dim=1, keepdim=True).expand_as(weight).reshape(-1) for weight in weights.values()])

    def loss(flat: torch.Tensor) -> torch.Tensor:
        parts = torch.split(flat, [weight.numel() for weight in weights.values()])
        own = {name: part.view_as(weights[name]) for name, part in zip(weights, parts, strict=True)}
        return functional.cross_entropy(torch.func.functional_call(network, own, (images,)), labels)

    hessian = torch.autograd.functional.hessian(loss, torch.cat([weight.reshape(-1) for weight in weights.values()]))
    expected = torch.linalg.eigvalsh((scale[:, None] * hessian * scale).double()).max()
    assert curvature(network, images, labels, 0) == pytest.approx(float(expected), rel=1e-3)
