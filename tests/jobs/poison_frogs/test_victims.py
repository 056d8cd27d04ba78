"""Victims: heads against scikit-learn, networks that learn; filters before them; verdicts, intervals and angles."""

import math
from dataclasses import replace

import pytest
import torch
from sklearn.linear_model import LogisticRegression

from jobs.common.data.images.base import Pixels
from jobs.common.models.classifiers.small import digits_16_net
from jobs.common.training.optimizers import OptimizerParams
from jobs.poison_frogs.defences.defence_params import Clustering, DeepKnn, L2Outliers, Spectral
from jobs.poison_frogs.victims.angles import class_vector, rotation
from jobs.poison_frogs.victims.heads import HeadParams, fit_head
from jobs.poison_frogs.victims.networks import FineTuneParams, PoisonedSet, ScratchParams, fit_network
from jobs.poison_frogs.victims.outcomes import verdict
from service.errors import RunFailedError

DRAW = torch.Generator().manual_seed(0)
CENTRES = 2 * torch.randn(3, 20, generator=DRAW)
LABELS = torch.arange(90) % 3
FEATURES = CENTRES[LABELS] + 2 * torch.randn(90, 20, generator=DRAW)


@pytest.mark.parametrize("l2", [1e-3, 1e-1])
def test_a_converged_head_is_that_of_scikit_learn(l2):
    head = fit_head(FEATURES.double(), LABELS, 3, HeadParams(l2=l2), seed=0)
    known = LogisticRegression(C=1 / (l2 * 90), tol=1e-8, max_iter=5000).fit(FEATURES.double().numpy(), LABELS.numpy())
    expected = torch.tensor(known.predict_proba(FEATURES.double().numpy()))
    torch.testing.assert_close(head(FEATURES.double()).softmax(1), expected, rtol=1e-3, atol=1e-4)
    again = fit_head(FEATURES.double(), LABELS, 3, HeadParams(l2=l2), seed=5)
    torch.testing.assert_close(again.weight, head.weight, rtol=1e-2, atol=1e-3)  # wherever it began


def test_adam_makes_as_many_updates_as_are_given():
    short, long = (HeadParams(solver="adam", updates=updates, l2=0.0) for updates in (5, 400))
    before, after = (fit_head(FEATURES, LABELS, 3, each, seed=0) for each in (short, long))
    losses = [float(torch.nn.functional.cross_entropy(head(FEATURES), LABELS)) for head in (before, after)]
    assert losses[1] < 0.2 * losses[0]
    assert int(after.moments["step"]) == 400
    # a warm start goes on from the weights and from Adam's moments
    warm = HeadParams(solver="adam", start="warm", updates=1, l2=0.0)
    further = fit_head(FEATURES, LABELS, 3, warm, seed=0, clean=after)
    assert int(further.moments["step"]) == 401 and int(after.moments["step"]) == 400
    assert float((further.weight - after.weight).abs().max()) < 0.02
    weight, bias = (torch.nn.Parameter(each.clone()) for each in (after.weight, after.bias))
    optimizer = torch.optim.Adam([weight, bias], 0.01)
    for whole in (warm.model_copy(update={"updates": 7, "batch": 90, "l2": 0.1}),):
        ours = fit_head(FEATURES, LABELS, 3, whole, seed=0, clean=replace(after, moments={}))
        for _ in range(7):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(FEATURES @ weight.T + bias, LABELS) + 0.05 * weight.square().sum()
            loss.backward()
            optimizer.step()
        torch.testing.assert_close(ours.weight, weight.detach(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(ours.bias, bias.detach(), rtol=1e-4, atol=1e-5)
    cold = fit_head(FEATURES, LABELS, 3, short.model_copy(update={"updates": 1}), seed=0, clean=after)
    assert float(cold.weight.abs().max()) < 0.02, "a cold one begins at nearly nothing"


def pictures() -> tuple[Pixels, PoisonedSet]:
    """Dark and bright images of 8x8; the poisons are bright and said to be dark, but striped."""
    shades = torch.randint(0, 100, (60, 1, 8, 8), generator=DRAW)
    labels = torch.arange(60) % 2
    images = Pixels("shades", ("dark", "bright"), (shades + 120 * labels.view(-1, 1, 1, 1)).to(torch.uint8), labels)
    stripes = 0.5 + 0.5 * (torch.arange(8) % 2).expand(2, 1, 8, 8)
    return images, PoisonedSet(images, torch.arange(40), stripes, torch.tensor([0, 0]))


@pytest.mark.parametrize("kind", [FineTuneParams, ScratchParams])
def test_a_network_learns_images_and_poisons(kind):
    images, data = pictures()
    torch.manual_seed(0)
    network = digits_16_net(classes=2, channels=1, side=8, size=16)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    seen: list[bool] = []
    params = kind(epochs=30, batch=16, optimizer=OptimizerParams(learning_rate=5e-3, weight_decay=0.0))
    trained = fit_network(network, data, params, 0, lambda net: seen.append(net.training))
    rows = torch.arange(40, 60)
    assert float((trained(images.images(rows)).argmax(1) == images.labels[rows]).double().mean()) > 0.9
    assert trained(data.poisons).argmax(1).tolist() == [0, 0]
    assert seen == [False] * 30
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items()), "a copy learns"
    again = fit_network(network, data, params, 0)
    assert all(torch.equal(a, b) for a, b in zip(trained.parameters(), again.parameters(), strict=True))
    with pytest.raises(RunFailedError, match="stopped being finite between weight updates 1 and 3"):
        fit_network(network, replace(data, poisons=data.poisons * torch.nan), params, 0)


def test_hidden_linear_layers_alone_have_a_penalty():
    _, data = pictures()
    network = digits_16_net(classes=2, channels=1, side=8, size=16)
    optimizer = OptimizerParams(learning_rate=1e-3, weight_decay=0.0)
    free, bound = (
        fit_network(network, data, FineTuneParams(epochs=20, batch=42, optimizer=optimizer, hidden_l2=l2), 0)
        for l2 in (0.0, 10.0)
    )
    assert float(bound[7].weight.norm()) < 0.95 * float(free[7].weight.norm())
    assert float(bound[0].weight.norm()) > 0.95 * float(free[0].weight.norm())


@pytest.mark.parametrize("defence", [DeepKnn(k=5), L2Outliers(share=0.1), Spectral(poisons=1), Clustering()])
def test_a_filter_sees_a_single_mislabelled_point_or_not(defence):
    features = torch.cat([10 * CENTRES[LABELS] + FEATURES, 10 * CENTRES[:1] + 0.01])
    keep = defence.keep(features, torch.cat([LABELS, torch.tensor([1])]))
    assert keep.shape == (91,) and keep.dtype == torch.bool
    assert not bool(keep[-1]), "so far away it is found by each"
    assert float(keep[:-1].double().mean()) > 0.5


def test_a_verdict_knows_four_ends():
    assert verdict(1, true_class=0, base_class=1, fitted=0.0) == "base class"
    assert verdict(0, true_class=0, base_class=1, fitted=1.0) == "own class"
    assert verdict(2, true_class=0, base_class=1, fitted=0.6) == "third class"
    assert verdict(0, true_class=0, base_class=1, fitted=0.4) == "inconclusive"


def test_angles_are_exact_where_they_are_small():
    x, y = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 0.1])
    assert rotation(x, y) == pytest.approx(90) and rotation(x, -x) == pytest.approx(180)
    turned = torch.tensor([math.cos(1e-4), math.sin(1e-4)], dtype=torch.float64)
    assert rotation(x, turned) == pytest.approx(math.degrees(1e-4), rel=1e-6)
    weight = torch.tensor([[1.0, 2.0], [3.0, -2.0]])
    assert class_vector(weight, 1).tolist() == [1.0, -2.0]
    torch.testing.assert_close(class_vector(weight + 7.0, 1), class_vector(weight, 1))
