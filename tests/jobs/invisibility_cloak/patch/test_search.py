"""The search for a patch: Adam as in torch, resumed bit for bit, weights of detectors, and detectors left alone."""

import copy
from typing import Any

import pytest
import torch

from jobs.common.data.boxes.scenes import scenes
from jobs.common.detection.base import weights_hash
from jobs.common.detection.detectors.one_anchor import one_anchor
from jobs.common.detection.windows import WindowedDetector
from jobs.invisibility_cloak.patch.rendering_params import RenderingParams
from jobs.invisibility_cloak.patch.search import Problem, State, random_patch, searched
from jobs.invisibility_cloak.patch.search_params import SearchParams
from service.errors import InputError
from service.planning.validation import validate
from tests.jobs.invisibility_cloak.toys import Restless, Spots


def problem(**detectors: Spots) -> Problem:
    data = scenes("train", 48, 12)
    rendering = RenderingParams(scale=0.5, median=1)
    return Problem(detectors or {"spots": Spots()}, data, torch.arange(12), "person", rendering)


def params(**changes: Any) -> SearchParams:
    basis = {"size": [10, 6], "iterations": 12, "batch": 4, "learning_rate": 0.05}
    return validate(SearchParams, {**basis, **changes}, "search")


def start(detectors: int = 1, size: tuple[int, int] = (10, 6)) -> State:
    return State.begin(random_patch(size, 0), detectors)


def test_a_patch_learns_to_be_dark_where_brightness_is_seen() -> None:
    asked = params(iterations=60, smoothness={"weight": 0.0}, decay={"milestones": []})
    state, losses = searched(start(), problem(), asked, 0, 60)
    assert losses.shape == (60, 1) and float(losses[-8:].mean()) < float(losses[:8].mean())
    assert float(state.patch[0].mean()) < 0.1 < float(state.patch[1].mean()), "only red is seen"
    assert float(state.patch.min()) >= 0 and float(state.patch.max()) <= 1


@pytest.mark.parametrize("ensemble", [{"kind": "fixed"}, {"kind": "min_max"}])
def test_a_search_that_goes_on_ends_with_the_same_patch(ensemble: dict[str, Any]) -> None:
    asked = params(ensemble=ensemble, cutout={"probability": 0.5}, warm_up=4)
    both = problem(red=Spots("red"), green=Spots("green", 1))
    whole, losses = searched(start(2), both, asked, 5, 12)
    half, first = searched(start(2), both, asked, 5, 7)
    again, second = searched(half, both, asked, 5, 12)
    tensors, others = (
        (each.patch, each.logarithms, each.first_losses, *each.moments.values()) for each in (whole, again)
    )
    assert len(others) == 7 and all(map(torch.equal, tensors, others))
    assert torch.equal(torch.cat([first, second]), losses) and whole.iteration == again.iteration == 12
    other, _ = searched(start(2), both, asked, 6, 12)
    assert not torch.equal(other.patch, whole.patch), "another seed, another patch"


@pytest.mark.parametrize("size", [(10, 6), (18, 4)], ids=["of the search", "of its own"])
def test_a_search_in_windows_is_that_of_whole_passes(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Within rounding; and goes on bit for bit. Also of a patch of another aspect ratio, such as one of a file."""
    torch.manual_seed(0)
    hinge = {"kind": "hinge", "margin": 10.0}  # which an untrained network is above
    data, asked = scenes("train", 96, 4), params(iterations=6, batch=2, objective=hinge, smoothness={"weight": 0.0})
    rendering = RenderingParams(median=1, scale=0.15)
    task = Problem({"learnt": one_anchor()}, data, torch.arange(4), "person", rendering)
    asked_for: list[int] = []
    inner = WindowedDetector.priors
    monkeypatch.setattr(WindowedDetector, "priors", lambda *given: (asked_for.append(1), inner(*given))[1])
    parts, losses = searched(start(size=size), task, asked, 0, 6)
    half, _ = searched(start(size=size), task, asked, 0, 3)
    assert len(asked_for) == 9 and torch.equal(searched(half, task, asked, 0, 6)[0].patch, parts.patch)
    monkeypatch.setattr("jobs.invisibility_cloak.patch.search.windowed", lambda *given: None)
    whole, expected = searched(start(size=size), task, asked, 0, 6)
    assert float(losses.min()) > 0
    assert torch.allclose(losses, expected, rtol=1e-5) and torch.allclose(parts.patch, whole.patch, atol=1e-3)


def test_the_rate_rises_from_a_third_and_falls_at_milestones() -> None:
    asked = params(iterations=100, learning_rate=0.3, warm_up=10, decay={"milestones": [0.5, 80], "factor": 0.1})
    assert [asked.rate(at) for at in (0, 5, 10, 49)] == pytest.approx([0.1, 0.2, 0.3, 0.3])
    assert [asked.rate(at) for at in (50, 79, 80, 99)] == pytest.approx([0.03, 0.03, 0.003, 0.003])


def test_an_attack_leaves_the_detector_as_it_was() -> None:
    detector = Spots().train()
    before, statistics = weights_hash(detector), copy.deepcopy(detector.norm.running_mean)
    searched(start(), problem(spots=detector), params(), 0, 12)
    assert weights_hash(detector) == before and torch.equal(detector.norm.running_mean, statistics)
    assert detector.weight.grad is None


def test_an_attack_leaves_weights_and_statistics_of_a_network_as_they_were() -> None:
    """One whose batch norm is in training mode when it is given."""
    torch.manual_seed(0)
    detector = one_anchor(("person", "tree"), 48).train()
    before = {name: each.clone() for name, each in detector.state_dict().items()}
    state, _ = searched(start(), problem(learnt=detector), params(), 0, 12)
    assert not torch.equal(state.patch, start().patch)
    after = detector.state_dict()
    assert all(torch.equal(each, after[name]) for name, each in before.items())
    assert any("running_mean" in name for name in before)


def test_a_detector_that_changes_is_found_out() -> None:
    with pytest.raises(InputError, match="detector 'restless' changed while it was attacked"):
        searched(start(), problem(restless=Restless()), params(), 0, 2)


def test_a_loss_that_is_not_finite_is_said_so() -> None:
    broken = Spots()
    with torch.no_grad():
        broken.weight.fill_(torch.inf)
    with pytest.raises(InputError, match="not finite in iteration 1"):
        searched(start(), problem(spots=broken), params(), 0, 12)


def test_min_max_weights_go_to_the_detector_that_is_fooled_least() -> None:
    """Red is easy to hide from; the third detector does not see the patch at all, and its loss stays as it is."""
    blind = Spots("blind")
    with torch.no_grad():
        blind.norm.weight.zero_()
        blind.norm.bias.fill_(1.0)
    both = problem(red=Spots("red"), blind=blind)
    asked = params(iterations=40, ensemble={"kind": "min_max", "step_size": 0.5, "regularisation": 0.1})
    state, _ = searched(start(2), both, asked, 0, 40)
    assert float(state.weights[1]) > 0.55 and float(state.weights.sum()) == pytest.approx(1)
    fixed, _ = searched(start(2), both, params(iterations=40), 0, 40)
    assert torch.equal(fixed.weights, torch.tensor([0.5, 0.5]))


def test_a_detector_of_weight_zero_does_not_count() -> None:
    both = problem(red=Spots("red"), green=Spots("green", 1))
    alone = searched(start(), problem(red=Spots("red")), params(), 0, 12)[0]
    weighted = params(ensemble={"kind": "fixed", "weights": {"green": 0.0}})
    assert torch.allclose(searched(start(2), both, weighted, 0, 12)[0].patch, alone.patch, atol=1e-6)


def test_printability_draws_colours_to_those_of_the_printer() -> None:
    grey = ["#808080"]
    asked = params(iterations=60, smoothness={"weight": 0.0}, printability={"weight": 1e6, "colours": grey})
    state, _ = searched(start(), problem(), asked, 0, 60)
    before = float((start().patch - 128 / 255).abs().mean())
    assert float((state.patch - 128 / 255).abs().mean()) < 0.3 * before
