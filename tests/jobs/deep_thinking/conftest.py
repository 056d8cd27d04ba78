"""A tiny study that trains in seconds, and a handle on a folder of its own."""

import pytest

from jobs.common.training.optimizers import OptimizerParams
from jobs.deep_thinking.data import FreshBatches
from jobs.deep_thinking.training import TrainingParams


@pytest.fixture
def tiny() -> TrainingParams:
    return TrainingParams(
        size=6,
        iterations=4,
        batch=8,
        alpha=0.5,
        data=FreshBatches(updates=12, validation=20),
        optimizer=OptimizerParams(clip=1.0),
        throttle=True,
        report_every=4,
        keep="best",
    )
