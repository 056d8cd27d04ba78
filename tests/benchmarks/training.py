"""Training steps per second of the deep-thinking study, against straightforward implementations of the same step.

Three ways to take one step of the quickstart's recipe (prefix sums of 16 bits, recall, progressive loss only):

    ours      the study's `loss` on the study's network, as `train` calls it
    plain     the same loss written down directly on a network of plain torch layers
    released  what the published code does: gradients are recorded for the iterations that are thrown away, every
              iteration is read out, and the full loss is computed even where its weight is 0

They run in turn, a block of steps each, and the ratio of the medians is printed.
"""

import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn import functional

from jobs.deep_thinking.networks import network
from jobs.deep_thinking.problems import problem
from jobs.deep_thinking.training import Draw, draw, loss

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


def stepper(net: nn.Module, loss_of: Callable[[Tensor, Tensor, Draw], Tensor]) -> Callable[[int], None]:
    """One optimisation step with a given loss."""
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3, weight_decay=2e-4)
    prefix = problem("prefix_sums")

    def step(index: int) -> None:
        inputs, targets = prefix.sample(BITS, BATCH, index)
        value = loss_of(inputs, targets, draw(ITERATIONS, index))
        optimizer.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()

    return step


def ours() -> Callable[[int], None]:
    net = network("dt_net_1d", channels=1, width=WIDTH)
    prefix = problem("prefix_sums")
    return stepper(net, lambda inputs, targets, drawn: loss(net, prefix, inputs, targets, ITERATIONS, 1.0, drawn)[0])


def plain() -> Callable[[int], None]:
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

    return stepper(net, loss_of)


def released() -> Callable[[int], None]:
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

    return stepper(net, loss_of)


def main() -> None:
    torch.set_num_threads(1)
    steps = {"ours": ours(), "plain": plain(), "released": released()}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step(0)  # warm up
    for round_ in range(ROUNDS):
        for name, step in steps.items():
            began = time.perf_counter()
            for index in range(round_ * BLOCK, (round_ + 1) * BLOCK):
                step(index)
            seconds[name].append((time.perf_counter() - began) / BLOCK)
    typical = {name: median(each) for name, each in seconds.items()}
    for name, each in typical.items():
        print(f"{name:9} {1 / each:7.1f} steps/s, ours is {each / typical['ours']:.2f} times as fast")


if __name__ == "__main__":
    main()
