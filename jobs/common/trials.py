"""Trials of a run beside each other."""

from collections.abc import Sequence
from typing import Any

from service.run import Trial


def rows_of(trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """A row a trial: its label, and every metric that one of them has; None where it has not."""
    names = sorted({name for trial in trials for name in trial.metrics})
    return [{"trial": trial.label, **{name: trial.metrics.get(name) for name in names}} for trial in trials]
