"""Wall time of Free-8 against natural training and PGD-7, with equal numbers of weight updates.

The study's own loop on colour images of 32x32 with random crops and flips, data loading included, validation left out:
a narrow network of the paper's family and a residual network of 20 layers. The three run in turn, a block of updates
each, and the ratios of the medians are printed. The goal: Free-8 takes at most 1.1 times as long as natural training
and at most 0.2 times as long as PGD-7. What it adds is the first layer's gradient by its inputs, which natural training
leaves out: much in a shallow network, next to nothing in a deep one.
"""

import tempfile
from statistics import median

import torch

from jobs.common.attacks import Ball
from jobs.common.data.augmentation import AugmentationParams
from jobs.common.data.images.base import Pixels
from jobs.common.data.training_data import TrainingImages
from jobs.common.models.classifiers import classifier
from jobs.common.training.adversarial.methods.base import Method
from jobs.common.training.adversarial.methods.free import Free
from jobs.common.training.adversarial.methods.natural import Natural
from jobs.common.training.adversarial.methods.pgd import ProjectedGradient
from jobs.common.training.adversarial.training import TrainingParams, train
from jobs.common.training.optimizers import OptimizerParams
from service.run import Run
from service.store import open_store

METHODS: dict[str, Method] = {"natural": Natural(), "Free-8": Free(replay=8), "PGD-7": ProjectedGradient(steps=7)}
NETWORKS: dict[str, dict[str, int]] = {"wide_resnet": {"depth": 8, "width": 2}, "resnet20": {}}
BATCH, UPDATES = 16, 8
ROUNDS = 5


def images(count: int = 600) -> Pixels:
    """Noise: what is learnt does not matter here."""
    stream = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, 32, 32), generator=stream, dtype=torch.uint8)
    return Pixels("noise", tuple("0123456789"), pixels, torch.randint(0, 10, (count,), generator=stream))


def seconds(network: str, method: Method, updates: int = UPDATES) -> float:
    """Of one weight update."""
    params = TrainingParams(
        updates=updates,
        batch=BATCH,
        optimizer=OptimizerParams(kind="sgd", learning_rate=0.01),
        augmentation=AugmentationParams(padding=2, flip=True),
        report_every=updates,
        held_out=1,
    )
    with tempfile.TemporaryDirectory() as folder:
        run = Run(open_store(folder), 0)
        data = TrainingImages(images(), params.held_out, BATCH, params.augmentation, run.seed_for)
        train(classifier(network, **NETWORKS[network]), data, method, Ball("Linf", 8 / 255), params, run)
    return run.metrics["train_seconds"] / updates


def main() -> None:
    torch.set_num_threads(1)
    for network in NETWORKS:
        took: dict[str, list[float]] = {name: [] for name in METHODS}
        for method in METHODS.values():
            seconds(network, method, updates=1)  # warm up
        for _ in range(ROUNDS):
            for name, method in METHODS.items():
                took[name].append(seconds(network, method))
        typical = {name: median(each) for name, each in took.items()}
        told = ", ".join(f"{name} {1000 * each:.0f} ms" for name, each in typical.items())
        natural, pgd = (typical["Free-8"] / typical[name] for name in ("natural", "PGD-7"))
        print(f"{network}: {told} an update; Free-8 takes {natural:.2f} of natural training and {pgd:.3f} of PGD-7")


if __name__ == "__main__":
    main()
