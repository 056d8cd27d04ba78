"""Trials of a run beside each other."""

from collections.abc import Collection, Sequence
from typing import Any

from service.run import Trial


def rows_of(trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """A row a trial: its label, and every metric that one of them has; None where it has not."""
    names = sorted({name for trial in trials for name in trial.metrics})
    return [{"trial": trial.label, **{name: trial.metrics.get(name) for name in names}} for trial in trials]


def label_without_repeats(trial: Trial, repeats: Collection[str] = ("seed",)) -> str:
    """What a trial and its repeats are called: its label without the fields of a sweep that only draw anew.

    repeats: the last parts of the names of these fields.
    """
    return " ".join(word for word in trial.label.split(" ") if word.partition("=")[0] not in repeats) or "all"
