"""Training of the studies beside its bound and plain training.

The plain way is float32, one batch after another sent from the CPU, and a loss that is read after each.
"""

import tempfile
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from jobs.common.attacks import Ball
from jobs.common.data.augmentation import AugmentationParams
from jobs.common.data.images.base import Pixels
from jobs.common.data.masks.augmentation import JointAugmentationParams
from jobs.common.data.masks.base import Pairs
from jobs.common.data.training_data import TrainingImages, TrainingMasks
from jobs.common.training import loop
from jobs.common.training.adversarial.methods.free import Free
from jobs.common.training.adversarial.training import AdversarialStep, Replayed, TrainingParams, build_optimizer
from jobs.common.training.engine import Engine, EngineParams
from jobs.common.training.optimizers import OptimizerParams
from jobs.deep_thinking.data import FreshBatches
from jobs.deep_thinking.networks import network as thinker
from jobs.deep_thinking.problems import problem
from jobs.deep_thinking.training import ThinkingStep
from jobs.deep_thinking.training import TrainingParams as ThinkingParams
from jobs.stacked_unets.networks import segmenter
from jobs.stacked_unets.training import SegmentationStep, parameter_groups
from jobs.stacked_unets.training import TrainingParams as SegmentationParams
from service.run import Run
from service.store import open_store
from tests.gpu.bounds import Alone
from tests.gpu.hot_path import HotPath, LeftOutError, Way, network_of
from tests.gpu.machine import Machine

Compiled = Literal["kernels", "graphs"] | None
RATES = OptimizerParams(kind="sgd", learning_rate=1e-3)


def engine_params(machine: Machine, compiled: Compiled = None) -> EngineParams:
    """LeftOutError if something is to be compiled in a dry run."""
    if machine.dry and compiled is not None:
        raise LeftOutError("not in a dry run: compiling takes longer than all else, and graphs need a GPU")
    return EngineParams(precision="float32" if machine.dry else "bfloat16", compile=compiled)


def handle() -> Run:
    return Run(open_store(tempfile.mkdtemp(prefix="gpu-check-")), 0)


def block(step: loop.Step, optimizer: torch.optim.Optimizer, data: object, updates: int) -> Way:
    """So many updates in the loop of all studies, with one report."""
    plan = loop.Plan(updates=updates, rates=RATES, report_every=updates, seed=lambda update: None)
    step.validate = lambda progress: {}  # type: ignore[method-assign]
    return lambda: loop.train(step, optimizer, data, plan)  # type: ignore[arg-type]


def by_hand(network: nn.Module, batches: list[tuple[Tensor, Tensor]], updates: int) -> Way:
    """Plain training: batches from the CPU, and a loss that is read after each update."""
    network = network.train()
    optimizer = torch.optim.SGD(network.parameters(), 1e-3, momentum=0.9)
    device = next(network.parameters()).device

    def act() -> None:
        for update in range(updates):
            images, labels = (each.to(device) for each in batches[update % len(batches)])
            loss = functional.cross_entropy(network(images), labels)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            loss.item()

    return act


def free_training(machine: Machine, name: str, options: dict[str, object], compiled: Compiled = None) -> HotPath:
    batch, updates = (4, 2) if machine.dry else (128, 16)
    stream = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (8 * batch, 3, 32, 32), generator=stream, dtype=torch.uint8)
    images = Pixels("noise", tuple("0123456789"), pixels, torch.randint(0, 10, (len(pixels),), generator=stream))
    run, method = handle(), Free(replay=8)
    params = TrainingParams(
        updates=updates,
        batch=batch,
        optimizer=RATES,
        augmentation=AugmentationParams(padding=2, flip=True),
        engine=engine_params(machine, compiled),
        held_out=1,
    )
    data = TrainingImages(images, 1, batch, params.augmentation, run.seed_for, machine.device)
    step = AdversarialStep(
        Engine(network_of(machine, name, options), params.engine), data, method, Ball("Linf", 8 / 255), params, run
    )
    ours = block(step, build_optimizer(step.engine.network, params), Replayed(data, method.replays), updates)
    examples = torch.rand(batch, 3, 32, 32, device=machine.device)
    bound = Alone(network_of(machine, name, options), examples, machine.half, "all")
    labels = torch.randint(0, 10, (batch,))
    plain = by_hand(network_of(machine, name, options), [(examples.cpu(), labels)], updates)
    return HotPath(updates * batch, ours, bound, batch, plain, updates * batch, 0.6)


def deep_thinking(machine: Machine, compiled: Compiled = None) -> HotPath:
    width, size, batch, iterations, updates = (8, 8, 4, 3, 2) if machine.dry else (128, 32, 128, 30, 8)
    task = problem("prefix_sums")
    run, net = handle(), thinker("dt_net_1d", channels=1, width=width).to(machine.device)
    params = ThinkingParams(
        size=size,
        iterations=iterations,
        batch=batch,
        alpha=0.0,  # all iterations in each update: what the bound computes
        data=FreshBatches(updates=updates, validation=1),
        engine=engine_params(machine, compiled),
    )
    data = params.data.open(task, size, batch, run, machine.device)
    step = ThinkingStep(Engine(net, params.engine), net, task, data, params, run)
    ours = block(step, params.optimizer.build([(1.0, list(net.parameters()))]), data, updates)
    inputs, _ = task.sample(size, batch, 0)
    bound = Alone(_Thinks(net, iterations), inputs.to(machine.device), machine.half, "all")
    batches = [task.sample(size, batch, index) for index in range(updates)]
    plain = by_hand(
        _Thinks(thinker("dt_net_1d", channels=1, width=width), iterations).to(machine.device), batches, updates
    )
    return HotPath(updates * batch, ours, bound, batch, plain, updates * batch, 0.6)


class _Thinks(nn.Module):
    """A network that thinks, as a function of its inputs alone."""

    def __init__(self, network: nn.Module, iterations: int) -> None:
        super().__init__()
        self.network, self.iterations = network, iterations

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.network(inputs, self.iterations)[0]
        return logits


def segmentation_training(machine: Machine) -> HotPath:
    name, side, batch, updates = ("sunet_tiny", 32, 2, 2) if machine.dry else ("sunet64", 512, 16, 4)
    stream = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2 * batch + 1, 3, side, side), generator=stream, dtype=torch.uint8)
    masks = torch.randint(0, 21, (len(images), side, side), generator=stream, dtype=torch.uint8)
    pairs = Pairs("noise", tuple(map(str, range(21))), ((0, 0, 0),) * 21, images, masks)
    run = handle()
    params = SegmentationParams(
        updates=updates, batch=batch, optimizer=RATES, engine=engine_params(machine), held_out=1
    )
    data = TrainingMasks(pairs, 1, batch, JointAugmentationParams(), run.seed_for, machine.device)
    network = segmenter(name, classes=21).to(machine.device)
    step = SegmentationStep(Engine(network, params.engine), data, params)
    ours = block(step, RATES.build(parameter_groups(network, params)), data, updates)
    examples = torch.rand(batch, 3, side, side, device=machine.device)
    bound = Alone(network, examples, machine.half, "all")
    plain_network = segmenter(name, classes=21).to(machine.device)
    plain = by_hand(plain_network, [(examples.cpu(), masks[:batch].long())], updates)
    return HotPath(updates * batch, ours, bound, batch, plain, updates * batch, 0.6)
