"""Weight updates per second of the deep-thinking study, against straightforward implementations of the same update.

Three ways to make one update of the quickstart's recipe (prefix sums of 16 bits, recall, progressive loss only):

    ours      the training loop of all studies, with the study's step on the study's network
    plain     the same loss written down directly on a network of plain torch layers
    released  what the published code does: gradients are recorded for the iterations that are thrown away, every
              iteration is read out, and the full loss is computed even where its weight is 0

They run in turn, a block of updates each, and the ratio of the medians is printed.
"""

import tempfile
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn import functional

from jobs.common.training import loop
from jobs.common.training.engine import CPU, Engine
from jobs.common.training.optimizers import OptimizerParams
from jobs.deep_thinking.data import FreshBatches
from jobs.deep_thinking.networks import network
from jobs.deep_thinking.problems import problem
from jobs.deep_thinking.training import Draw, ThinkingStep, TrainingParams, draw
from service.run import Run
from service.store import open_store

WIDTH, BITS, BATCH, ITERATIONS = 48, 16, 64, 12
BLOCK, ROUNDS = 30, 5


class Plain(nn.Module):
    """The recurrent network with recall, one line a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.projection = nn.Conv1d(1, WIDTH, 3, padding=1, bias=False)
        self.recall = nn.Conv1d(WIDTH + 1, WIDTH, 3, padding=1, bias=False)
        self.convolutions = nn.ModuleList(nn.Conv1d(WIDTH, WIDTH, 3, padding=1, bias=False) for _ in range(4))
        self.head = nn.Sequential(
            nn.Conv1d(WIDTH, WIDTH, 3, padding=1, bias=False),
            nn.ReLU(),
            nn.Conv1d(WIDTH, WIDTH // 2, 3, padding=1, bias=False),
            nn.ReLU(),
            nn.Conv1d(WIDTH // 2, 2, 3, padding=1, bias=False),
        )

    def start(self, inputs: Tensor) -> Tensor:
        return functional.relu(self.projection(inputs))

    def step(self, features: Tensor, inputs: Tensor) -> Tensor:
        features = functional.relu(self.recall(torch.cat([features, inputs], 1)))
        for first, second in ((0, 1), (2, 3)):
            inner = functional.relu(self.convolutions[first](features))
            features = functional.relu(self.convolutions[second](inner) + features)
        return features


def by_hand(net: nn.Module, loss_of: Callable[[Tensor, Tensor, Draw], Tensor]) -> Callable[[], None]:
    """A block of updates with a given loss."""
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3, weight_decay=2e-4, fused=True)
    prefix = problem("prefix_sums")

    def block() -> None:
        for index in range(BLOCK):
            inputs, targets = prefix.sample(BITS, BATCH, index)
            value = loss_of(inputs, targets, draw(ITERATIONS, index))
            optimizer.zero_grad()
            value.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()

    return block


class Numbered(Run):
    """A handle whose seeds are the numbers of the updates: all three have the same batches and draws."""

    def seed_for(self, *key: str | int) -> int:
        return key[-1] if isinstance(key[-1], int) else 0


def ours(folder: str) -> Callable[[], None]:
    net, prefix = network("dt_net_1d", channels=1, width=WIDTH), problem("prefix_sums")
    run = Numbered(open_store(folder), 0)
    params = TrainingParams(
        size=BITS,
        iterations=ITERATIONS,
        batch=BATCH,
        data=FreshBatches(updates=BLOCK, validation=1),
        optimizer=OptimizerParams(learning_rate=2e-3, clip=1.0),
    )
    data = params.data.open(prefix, BITS, BATCH, run, CPU)
    step = ThinkingStep(Engine(net, params.engine), net, prefix, data, params, run)
    optimizer = params.optimizer.build([(1.0, list(net.parameters()))])
    plan = loop.Plan(updates=BLOCK, rates=params.optimizer, report_every=BLOCK, seed=lambda update: update)

    def block() -> None:
        loop.train(step, optimizer, data, plan)

    return block


def plain() -> Callable[[], None]:
    net = Plain()

    def loss_of(inputs: Tensor, targets: Tensor, drawn: Draw) -> Tensor:
        features = net.start(inputs)
        if drawn.skipped:
            with torch.no_grad():
                for _ in range(drawn.skipped):
                    features = net.step(features, inputs)
        for _ in range(drawn.counted):
            features = net.step(features, inputs)
        return functional.cross_entropy(net.head(features), targets)

    return by_hand(net, loss_of)


def released() -> Callable[[], None]:
    net = Plain()

    def think(inputs: Tensor, features: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
        answers = torch.zeros(len(inputs), iterations, 2, inputs.shape[2])
        for iteration in range(iterations):
            features = net.step(features, inputs)
            answers[:, iteration] = net.head(features)
        return answers[:, -1], features

    def loss_of(inputs: Tensor, targets: Tensor, drawn: Draw) -> Tensor:
        full, _ = think(inputs, net.start(inputs), ITERATIONS)
        features = net.start(inputs)
        if drawn.skipped:
            features = think(inputs, features, drawn.skipped)[1].detach()
        logits, _ = think(inputs, features, drawn.counted)
        return functional.cross_entropy(logits, targets) + 0.0 * functional.cross_entropy(full, targets)

    return by_hand(net, loss_of)


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        blocks = {"ours": ours(folder), "plain": plain(), "released": released()}
        seconds: dict[str, list[float]] = {name: [] for name in blocks}
        for round_ in range(ROUNDS + 1):
            for name, block in blocks.items():
                began = time.perf_counter()
                block()
                if round_:  # the first warms up
                    seconds[name].append((time.perf_counter() - began) / BLOCK)
    typical = {name: median(each) for name, each in seconds.items()}
    for name, each in typical.items():
        print(f"{name:9} {1 / each:7.1f} updates/s, ours is {each / typical['ours']:.2f} times as fast")


if __name__ == "__main__":
    main()
