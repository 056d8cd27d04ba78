"""Small networks and images in memory, for tests in this process and in others."""

import torch
from torch import nn

from jobs.common.data.images.base import Pixels
from jobs.common.training.adversarial.objective import Objective
from jobs.common.training.adversarial.training import TrainingParams
from jobs.common.training.engine import Engine, EngineParams
from jobs.common.training.optimizers import OptimizerParams


def network(batch_norm: bool = True, seed: int = 0, dropout: float = 0.0) -> nn.Module:
    """For images of 2 channels and 6x6, 3 classes."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1),
            nn.BatchNorm2d(4) if batch_norm else nn.Identity(),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Flatten(),
            nn.Linear(4 * 36, 3),
        )


def images(count: int = 40, seed: int = 0) -> Pixels:
    """Random images whose class shows in their mean."""
    stream = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (count,), generator=stream)
    noise = torch.randint(0, 120, (count, 2, 6, 6), generator=stream)
    return Pixels("tiny", ("a", "b", "c"), (noise + 60 * labels.view(-1, 1, 1, 1)).to(torch.uint8), labels)


def objective(net: nn.Module, rows: int, label_smoothing: float = 0.0) -> Objective:
    """In float32, with all rows in this process."""
    return Objective(Engine(net.train(), EngineParams()), rows, label_smoothing)


TRAINING = TrainingParams(
    updates=12,
    batch=8,
    optimizer=OptimizerParams(kind="sgd", learning_rate=0.05),
    report_every=5,
    held_out=10,
    validation_batch=4,
    keep="best",
)
