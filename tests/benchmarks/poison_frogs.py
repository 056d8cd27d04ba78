"""Poisons per second: many pairs in a batch against one at a time, and against adversarial-robustness-toolbox.

The network of configs/poison_frogs/small.yaml, 64 pairs of its task, 100 steps each, nothing that stops earlier, on one
thread. The ways take turns, and ratios of medians of seconds per poison are printed, with the median collision of each.

The toolbox's FeatureCollisionAttack makes one poison after another, by the distance that is not squared, and carries a
step size that it has cut on to the next base. So it is made anew for each pair, and has the best of six step sizes, by
the median collision over the pairs that are timed. β is the same as ours.
"""

import copy
import logging
import time
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn import functional

from jobs.common.data.images.base import Source
from jobs.common.data.images.digits import digits_16
from jobs.common.models.classifiers import classifier
from jobs.poison_frogs.features import Features
from jobs.poison_frogs.poisons.collision import craft
from jobs.poison_frogs.poisons.recipes import FeatureCollision

PAIRS, TIMED_ART, ROUNDS = 64, 8, 3
EPOCHS, BATCH = 12, 64
STEPS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)  # of the toolbox
RECIPE = FeatureCollision(iterations=100, step=0.01, stop_change=0.0, quantise="none")

Way = Callable[[], Tensor]  # -> poisons, of which the first of all pairs in order


def trained() -> nn.Module:
    """The small network, by the recipe of the spec."""
    torch.manual_seed(0)
    net, data = classifier("digits_16_net"), digits_16("train", Source())
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(data)).split(BATCH):
            loss = functional.cross_entropy(net(data.images(rows)), data.labels[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return net.eval().requires_grad_(False)


def pairs(features: Features) -> tuple[Tensor, Tensor]:
    """Bases and targets: test images of 3 and 8, each with the nearest of the other class."""
    data = digits_16("test", Source())
    ours, others = ((data.labels == label).nonzero().flatten() for label in (3, 8))
    found, _ = features.of(data.images, torch.arange(len(data)))
    targets = torch.cat([ours[: PAIRS // 2], others[: PAIRS // 2]])[torch.randperm(PAIRS)]
    bases = []
    for target in targets.tolist():
        candidates = others if int(data.labels[target]) == 3 else ours
        bases.append(int(candidates[torch.cdist(found[[target]], found[candidates]).argmin()]))
    return data.images(torch.tensor(bases)), data.images(targets)


def toolbox(net: nn.Module, bases: Tensor, targets: Tensor, step: float) -> Way:
    """adversarial-robustness-toolbox on the first of the pairs."""
    from art.attacks.poisoning import FeatureCollisionAttack
    from art.estimators.classification import PyTorchClassifier

    model = PyTorchClassifier(
        copy.deepcopy(net), nn.CrossEntropyLoss(), (1, 16, 16), 10, clip_values=(0, 1), device_type="cpu"
    )
    # what goes into the last linear layer is what comes out of the layer before it
    layer = model.layer_names[-2]

    def one(base: Tensor, target: Tensor) -> Tensor:
        options = {"learning_rate": step, "max_iter": RECIPE.iterations, "similarity_coeff": RECIPE.beta0}
        attack = FeatureCollisionAttack(model, target.numpy(), layer, stopping_tol=1e-30, verbose=False, **options)
        return torch.from_numpy(attack.poison(base.numpy())[0])

    return lambda: torch.cat([one(bases[[row]], targets[[row]]) for row in range(TIMED_ART)])


def quietly(way: Way) -> tuple[float, Tensor]:
    """Seconds and poisons, without what a library has to say."""
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        began = time.perf_counter()
        poisons = way()
        return time.perf_counter() - began, poisons


def main() -> None:
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    net = trained()
    features = Features(net, torch.rand(1, 1, 16, 16))
    bases, targets = pairs(features)
    wanted = features(targets)

    def ours(size: int) -> Way:
        parts = [slice(first, first + size) for first in range(0, PAIRS, size)]

        def one(part: slice) -> Tensor:
            extract = features.prepared(bases[part])
            return craft(extract, bases[part], targets[part], wanted[part], RECIPE).images

        return lambda: torch.cat([one(part) for part in parts])

    def collision(poisons: Tensor) -> float:
        return float((features(poisons) - wanted[: len(poisons)])[:TIMED_ART].norm(dim=1).median())

    ways = {"in a batch": ours(PAIRS), "one at a time": ours(1)}
    try:
        tried = {step: collision(quietly(toolbox(net, bases, targets, step))[1]) for step in STEPS}
        best = min(tried, key=lambda step: tried[step])
        ways[f"adversarial-robustness-toolbox, step {best:g}"] = toolbox(net, bases, targets, best)
    except ImportError as error:
        print(f"adversarial-robustness-toolbox is absent: {error}")
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    near: dict[str, float] = {}
    for round_ in range(ROUNDS + 1):
        for name, way in ways.items():
            spent, poisons = quietly(way)
            near[name] = collision(poisons)
            if round_:  # the first warms up
                seconds[name].append(spent / len(poisons))
    for name, each in seconds.items():
        ratio = median(each) / median(seconds["in a batch"])
        print(
            f"{name:46} {1000 * median(each):8.2f} ms/poison, in a batch {ratio:6.2f} times as fast; "
            f"collision {near[name]:.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
