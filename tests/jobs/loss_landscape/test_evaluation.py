"""The fast evaluator against the network as it is written, and the invariance that filter normalisation is for."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from jobs.common.batch_size import largest_within
from jobs.common.mean_loss.scores import Scores, plain_scores
from jobs.common.models import fused_convolution
from jobs.common.models.directions import complete, moved, random_direction
from jobs.common.models.weights import tensors
from jobs.common.passes import Batches
from jobs.loss_landscape.surface import evaluator as evaluator_module
from jobs.loss_landscape.surface.evaluator import Evaluator, EvaluatorParams
from service.errors import InputError

AT = (0.2, -0.3)
COLOUR = {"side": 32, "channels": 3}
NETWORKS = {
    "residual": {"name": "cifar_resnet", "depth": 14},
    "plain": {"name": "cifar_resnet", "depth": 14, "shortcuts": False},
    "vgg": {"name": "vgg9", "width": 4, "side": 32, "channels": 3},
    "densenet": {"name": "densenet121", "width": 4, **COLOUR},
    "pre-activation": {"name": "preactivation_resnet18", "width": 4, **COLOUR},
    "bottlenecks": {"name": "cifar_resnet50", "width": 4, **COLOUR},
    "not to be traced": {"name": "wide_resnet", "depth": 8, "width": 1, "side": 8, "channels": 1},
    "no batch norm": {"name": "fast_mnist", "side": 28, "channels": 1},
}


def axes_for(network: nn.Module, space="weights", ignore="biasbn"):
    weights = tensors(network, space)
    return [
        random_direction(weights, "filter", ignore, torch.Generator().manual_seed(seed)) for seed in (1, 2)
    ], weights


@pytest.mark.parametrize("space, ignore", [("weights", "biasbn"), ("weights", "none"), ("states", "none")])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_has_the_losses_that_it_has_as_it_is_written(make_network, name, space, ignore):
    options = {"side": 8, "channels": 1, **NETWORKS[name]}
    network = make_network(**options)
    stream = torch.Generator().manual_seed(3)
    images = torch.rand(10, options["channels"], options["side"], options["side"], generator=stream)
    labels = torch.randint(0, 10, (10,), generator=stream)
    axes, weights = axes_for(network, space, ignore)
    evaluator = Evaluator(network, axes, images, labels, EvaluatorParams(batch=4))
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    for point in ((0.0, 0.0), AT):
        fast = evaluator.at(point)
        plain = plain_scores(network, moved(weights, axes, point), images, labels, "cross_entropy")
        torch.testing.assert_close(fast.losses, plain.losses, rtol=1e-4, atol=1e-5)
        assert fast.loss == pytest.approx(plain.loss, rel=1e-5)
        assert torch.equal(fast.right, plain.right)
    assert all(torch.equal(before[key], tensor) for key, tensor in network.state_dict().items()), "left as it is"


def test_folding_and_fusing_are_done_where_they_are_allowed(make_network, points):
    network = make_network(depth=14)
    still, _ = axes_for(network)
    moving, _ = axes_for(network, "states", "none")
    convolutions = sum(isinstance(module, nn.Conv2d) for module in network.modules())
    policy = Evaluator(network, still, *points, EvaluatorParams()).policy
    assert f"{convolutions} of {convolutions} batch norms folded" in policy
    # all but the two of the projections end in a ReLU
    assert f"{convolutions - 2} convolutions fused with what follows" in policy
    assert f"0 of {convolutions} batch norms folded" in Evaluator(network, moving, *points, EvaluatorParams()).policy


def test_at_zero_the_loss_is_that_of_the_network(make_network, points):
    network = make_network(depth=8)
    images, labels = points
    axes, _ = axes_for(network)
    scores = Evaluator(network, axes, images, labels, EvaluatorParams()).at((0.0, 0.0))
    with torch.no_grad():
        logits = network(images)
    assert scores.loss == pytest.approx(float(functional.cross_entropy(logits, labels)), rel=1e-6)
    assert scores.accuracy == float((logits.argmax(1) == labels).double().mean())
    assert scores.standard_error(len(labels)) == 0


@pytest.mark.parametrize("factor", [0.25, 8.0])
def test_filter_normalisation_does_not_see_the_scale_of_what_batch_norm_follows(make_network, points, factor):
    """Li et al. 2018, section 4: such a network computes the same, and its surface has to be the same."""
    network, scaled = make_network(depth=8), make_network(depth=8)
    norms = [module for module in scaled.modules() if isinstance(module, nn.BatchNorm2d)]
    layers = [module for module in scaled.modules() if isinstance(module, nn.Conv2d)]
    with torch.no_grad():
        for layer, norm in zip(layers, norms, strict=True):
            layer.weight *= factor
            norm.running_mean *= factor
            norm.running_var.copy_((norm.running_var + norm.eps) * factor**2 - norm.eps)
    for normalisation, same in (("filter", True), ("none", False)):
        surfaces = []
        for each in (network, scaled):
            weights = tensors(each, "weights")
            axes = [
                random_direction(weights, normalisation, "biasbn", torch.Generator().manual_seed(seed))
                for seed in (1, 2)
            ]
            evaluator = Evaluator(each, axes, *points, EvaluatorParams())
            surfaces.append([evaluator.at((x, y)).loss for x in (-1.0, 0.5) for y in (-0.5, 1.0)])
        assert np.allclose(*surfaces, rtol=1e-4) is same


def test_the_first_layer_of_a_perceptron_is_kept_as_three_tensors(points):
    images, labels = points
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 10)).eval()
    axes, weights = axes_for(network, ignore="none")
    evaluator = Evaluator(network, axes, images, labels, EvaluatorParams(batch=16))
    assert "layer 1 as a sum of 3 tensors" in evaluator.policy
    for point in ((0.0, 0.0), AT, (1.0, 1.0)):
        plain = plain_scores(network, moved(weights, axes, point), images, labels, "cross_entropy")
        torch.testing.assert_close(evaluator.at(point).losses, plain.losses, rtol=1e-5, atol=1e-5)


def test_tied_weights_move_together(points):
    images, labels = points

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.head = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 10)
            self.second.weight = self.first.weight

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.head(self.second(self.first(images.flatten(1)).relu()).relu())

    network = Tied().eval()
    axes, weights = axes_for(network, ignore="none")
    scores = Evaluator(network, axes, images, labels, EvaluatorParams(fold=False)).at(AT)
    plain = plain_scores(network, moved(weights, axes, AT), images, labels, "cross_entropy")
    torch.testing.assert_close(scores.losses, plain.losses)
    shortened = Evaluator(network, axes, images, labels, EvaluatorParams()).at(AT)
    torch.testing.assert_close(shortened.losses, plain.losses, rtol=1e-5, atol=1e-5)


def test_points_do_not_depend_on_those_before_them(make_network, points):
    network = make_network(depth=8)
    axes, _ = axes_for(network)
    evaluator = Evaluator(network, axes, *points, EvaluatorParams())
    first = evaluator.at(AT)
    evaluator.at((5.0, 5.0))
    assert torch.equal(evaluator.at(AT).losses, first.losses)


@pytest.mark.skipif(not fused_convolution.has_bfloat16(), reason="this processor has no bfloat16")
def test_bfloat16_is_near(make_network, points):
    network = make_network(depth=8)
    axes, _ = axes_for(network)
    evaluator = Evaluator(network, axes, *points, EvaluatorParams(precision="bfloat16"))
    exact, near = evaluator.at(AT), evaluator.at(AT, "bfloat16")
    assert 0 < abs(near.loss - exact.loss) < 0.02 * exact.loss


def test_float32_stands_in_for_bfloat16(make_network, points, monkeypatch):
    """On a processor without it, which also says so."""
    monkeypatch.setattr(fused_convolution, "has_bfloat16", lambda: False)
    network = make_network("digits_net")
    axes, _ = axes_for(network)
    evaluator = Evaluator(network, axes, *points, EvaluatorParams(precision="bfloat16"))
    assert torch.equal(evaluator.at(AT, "bfloat16").losses, evaluator.at(AT).losses)
    assert "float32 after all: this processor has no bfloat16" in evaluator.policy


def test_mse_is_that_of_the_probabilities(make_network, points):
    images, labels = points
    network = make_network("digits_net")
    scores = Evaluator(network, [], images, labels, EvaluatorParams(loss="mse")).at(())
    with torch.no_grad():
        wanted = nn.MSELoss()(network(images).softmax(1), torch.eye(10)[labels])
    assert scores.loss == pytest.approx(float(wanted), rel=1e-5)
    with pytest.raises(InputError, match="unknown loss 'cross_entrop'.*did you mean 'cross_entropy'"):
        Evaluator(network, [], images, labels, EvaluatorParams(loss="cross_entrop"))


def test_what_is_not_finite_is_counted(make_network, points):
    """Running variances below zero, as when states are moved by less than -1 (Li et al. 2018, code)."""
    network = make_network("digits_net")
    axes, _ = axes_for(network, "states", "none")
    scores = Evaluator(network, axes, *points, EvaluatorParams()).at((-1.5, 0.0))
    assert math.isnan(scores.loss) and scores.not_finite == len(points[1])
    assert scores.accuracy == 0


def test_points_far_above_the_bound_are_left_early(make_network):
    network = make_network("digits_net")
    images, labels = torch.rand(2000, 1, 8, 8), torch.randint(0, 10, (2000,))
    axes, weights = axes_for(network)
    whole = plain_scores(network, weights, images, labels, "cross_entropy").loss
    for bound, censored in ((whole / 2, True), (whole * 1.01, False)):
        scores = Evaluator(network, axes, images, labels, EvaluatorParams(batch=100, censor_above=bound)).at((0, 0))
        assert scores.censored is censored and len(scores.losses) == (300 if censored else 2000)


def test_the_standard_error_is_that_of_drawing_without_replacement():
    """Against the spread of the means of all 20 samples of three from six."""
    from itertools import combinations

    values = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0, 32.0])
    samples = [torch.stack(each) for each in combinations(values, 3)]
    spread = np.var([float(each.mean()) for each in samples])
    told = [Scores(each, each > 0, censored=False).standard_error(6) ** 2 for each in samples]
    assert np.mean(told) == pytest.approx(spread)


def test_an_axis_need_not_name_what_it_leaves(make_network, points):
    network = make_network("digits_net")
    weights = tensors(network)
    head = {"network.11.weight": torch.ones_like(weights["network.11.weight"])}
    one, other = (
        Evaluator(network, [axis], *points, EvaluatorParams()).at([0.5]) for axis in (head, complete(head, weights))
    )
    assert torch.equal(one.losses, other.losses)


@pytest.mark.parametrize("name", ["residual", "no batch norm"])
def test_the_largest_batch_that_fits_gives_the_same_losses(make_network, monkeypatch, name):
    """With a memory that is made up, in which 40 images have room; nothing of the attempts is left."""
    options = {"side": 8, "channels": 1, **NETWORKS[name]}
    network = make_network(**options)
    images = torch.rand(100, options["channels"], options["side"], options["side"])
    labels = torch.arange(100) % 10
    axes, _ = axes_for(network)
    expected = Evaluator(network, axes, images, labels, EvaluatorParams(batch=100)).at(AT)
    automatic = Evaluator(network, axes, images, labels, EvaluatorParams())
    sizes = []

    def largest(attempt, most, device):
        def peak(act):
            before = len(sizes)
            act()
            return sizes[before] * 1000

        def noted(size):
            sizes.append(size)
            attempt(size)

        return largest_within(noted, most, 40_000, peak)

    monkeypatch.setattr(evaluator_module, "largest_batch", largest)
    automatic.batches = Batches(automatic._largest_batch(), "points")
    assert automatic.batches.size == 32 and sizes == [1, 2, 4, 8, 16, 32, 64]
    torch.testing.assert_close(automatic.at(AT).losses, expected.losses, rtol=1e-4, atol=1e-5)
