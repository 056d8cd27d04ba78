"""What lies on a GPU never meets what was left on the CPU. The meta device stands for it: it computes shapes alone."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn

from jobs.common import passes
from jobs.common.curvature.hessian import Hessian
from jobs.common.data.boxes.scenes import scenes
from jobs.common.detection.detectors import TRAINABLE
from jobs.common.mean_loss.losses import cross_entropy
from jobs.common.mean_loss.scores import plain_scores
from jobs.common.models.directions import random_direction
from jobs.common.models.weights import tensors
from jobs.common.training import loop
from jobs.common.training.adversarial.methods.free import Free
from jobs.common.training.adversarial.methods.natural import Natural
from jobs.common.training.optimizers import OptimizerParams
from jobs.deep_thinking.data import FixedSet, FreshBatches
from jobs.generalization.basins.stacked_loss import StackedLoss
from jobs.invisibility_cloak.patch import search
from jobs.invisibility_cloak.patch.rendering_params import RenderingParams
from jobs.invisibility_cloak.patch.search_params import SearchParams
from jobs.loss_landscape.surface import evaluator
from jobs.loss_landscape.surface.moving_weights import MovingNetwork
from jobs.poison_frogs.features import Features
from service.planning.validation import validate
from tests.jobs import loops

META = torch.device("meta")
TRAININGS: dict[str, loops.Make] = {
    "sgd": partial(loops.supervised, OptimizerParams(kind="sgd", learning_rate=0.01, clip=1.0), keep_every=None),
    "adam": partial(loops.supervised, OptimizerParams(kind="adam", learning_rate=0.01), keep_every=None),
    "natural": partial(loops.adversarial, Natural(replay=2)),
    "free": partial(loops.adversarial, Free(replay=2)),
    "thinking, fresh batches": partial(loops.thinking, FreshBatches(validation=8)),
    "thinking, a fixed set": partial(loops.thinking, FixedSet(instances=40, epochs=1)),
    "segmentation": loops.segmentation,
    "recogniser": loops.recogniser,
    "victim": loops.victim,
}


class AnyGenerator(torch.Generator):
    """One on the CPU, wherever it is asked for: the meta device has none."""

    def __new__(cls, device: Any = None) -> "AnyGenerator":
        return super().__new__(cls)


@pytest.fixture
def elsewhere() -> Iterator[None]:
    """Networks go to the meta device when they are trained; what would have to be read there is not."""

    def train(step: Any, optimizer: Any, data: Any, plan: Any, run: Any = None) -> Any:
        for _ in range(2):
            batch = step.engine.send(data.batch(0))
            assert {each.device for each in batch} == {META}
            optimizer.zero_grad()
            terms = step.backward(batch, 0)
            assert {term.total.device for term in terms.values()} == {META}
            step.adjust_gradients()  # the step itself is torch's, which has none for the meta device
            nn.utils.clip_grad_norm_(step.engine.network.parameters(), 1.0, foreach=False)
        return loop.Progress()

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(loop, "train", train))
        stack.enter_context(mock.patch.object(torch, "Generator", AnyGenerator))
        stack.enter_context(mock.patch.object(torch.cuda, "mem_get_info", lambda device: (1 << 40, 1 << 40)))
        yield


@pytest.mark.parametrize("name", TRAININGS)
def test_training_keeps_to_its_device(name: str, make_run: Any, elsewhere: None) -> None:
    made = TRAININGS[name](1, make_run())
    made.network.to(META)
    made.call()


@pytest.mark.parametrize("layers", ["convolutions", "fully connected"])
def test_a_surface_keeps_to_its_device(layers: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the first layer is a sum of tensors that are kept."""
    monkeypatch.setattr(evaluator, "reserved_device", lambda: META)
    monkeypatch.setattr(evaluator, "largest_batch", lambda attempt, most, device: attempt(4) or 4)
    network: nn.Module = nn.Sequential(nn.Flatten(), nn.Linear(72, 16), nn.ReLU(), nn.Linear(16, 3))
    if layers == "convolutions":
        network = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    axis = random_direction(tensors(network.eval(), "weights"), "filter", "biasbn", torch.Generator().manual_seed(0))
    images, labels = torch.rand(8, 2, 6, 6), torch.zeros(8, dtype=torch.int64)
    made = evaluator.Evaluator(network, [axis], images, labels, evaluator.EvaluatorParams())
    assert (made._first is not None) == (layers == "fully connected") and made.batches.size == 4
    moving = MovingNetwork(made._base, made._axes, torch.float32, META)
    moving.move((0.1,))
    logits: Tensor = made._logits(moving, torch.float32, slice(4, 8), (0.1,))
    assert logits.device == META and logits.shape == (4, 3)


POINTS = torch.zeros(8, 39)
PASSES: dict[str, Callable[[nn.Module, Tensor, Tensor], object]] = {
    "losses": lambda network, *data: plain_scores(network, {}, *data, "cross_entropy"),
    "gradients": lambda network, *data: Hessian(network, *data).value_and_gradient_at(torch.zeros(36)),
    "products": lambda network, *data: Hessian(network, *data).products(torch.ones(1, 36).double()),
    "features": lambda network, images, _: Features(network, images[:1]).of(images.__getitem__, torch.arange(8)),
    "rays": lambda network, *data: StackedLoss(network, *data, cross_entropy)(POINTS),
    "chains": lambda network, *data: StackedLoss(network, *data, cross_entropy).gradients(POINTS),
}


@pytest.mark.parametrize("name", PASSES)
def test_a_pass_over_a_set_asks_a_gpu_for_its_largest_batch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where results depend on it by rounding alone. Here the GPU is only said to be one."""
    asked: list[int] = []

    def largest(attempt: Callable[[int], object], count: int, device: torch.device) -> int:
        asked.append(count)
        attempt(8)
        return 4

    monkeypatch.setattr(passes, "device_of", lambda network: META)
    monkeypatch.setattr(passes, "largest_batch", largest)
    PASSES[name](nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), torch.rand(8, 3, 2, 2), torch.zeros(8).long())
    assert asked == [8]


@pytest.mark.parametrize("ensemble", ["fixed", "min_max"])
def test_a_step_of_a_patch_keeps_to_its_device_and_reads_nothing_there(ensemble: str) -> None:
    """What is drawn where is found out on the CPU."""
    detector = TRAINABLE["one_anchor"](classes=("person",), side=48).to(META).eval()
    rendering = RenderingParams(scale=0.5, median=3)
    problem = search.Problem({"one": detector}, scenes("train", 48, 12), torch.arange(12), "person", rendering)
    basis = {"size": [10, 6], "iterations": 10, "batch": 4, "ensemble": {"kind": ensemble}}
    state = search.State.begin(search.random_patch((10, 6), 0), 1).to(META)
    prepared = search.Prepared.of(problem, validate(SearchParams, basis, "search"), state.shape, 0, META)
    losses = search.step(state, search.adam_of(state), prepared)
    assert losses.device == state.patch.device == META and losses.shape == (1,)
