"""What goes together with the generalization gap over the networks of a run, and how much that says.

Measures of a minimum are compared by how they order networks, as their scales differ: Kendall's tau is the share of
pairs that are in the order of the gap less that of pairs in the other order. Source of the comparison: Jiang et al.
2020, "Fantastic generalization measures and where to find them", section 4.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from jobs.common.metrics.correlation import FEW, FEWEST, Association, association
from jobs.generalization import figures
from service.run import Run, Trial

MEASURES = (
    "trace",
    "largest_eigenvalue",
    "principal_curvature",
    "worst_sharpness",
    "average_sharpness",
    "learning_coefficient",
    "margin",
)
FAMILIES = ("radius_", "log10_volume_")
"""of measures, one for each convention"""


def measures_of(trials: Sequence[Trial]) -> list[str]:
    """Which of the measures at least two trials have."""
    names = list(dict.fromkeys(name for trial in trials for name in trial.metrics))
    known = [name for name in names if name in MEASURES or name.startswith(FAMILIES)]
    return [name for name in known if sum(name in trial.metrics for trial in trials) > 1]


def correlations(trials: Sequence[Trial]) -> dict[str, Association]:
    """Of each measure with the gap."""
    gap = np.array([trial.metrics["gap"] for trial in trials])
    return {name: association(values_of(name, trials), gap) for name in measures_of(trials)}


def values_of(name: str, trials: Sequence[Trial]) -> np.ndarray:
    """A metric of each trial; NaN where a trial has none."""
    return np.array([trial.metrics.get(name, np.nan) for trial in trials])


def sentence(associations: dict[str, Association], unfitted: int) -> str:
    """What can be said of them, and no more. unfitted: networks that do not fit their training images."""
    trials = max(each.trials for each in associations.values())
    signed = [name for name, each in associations.items() if each.kendall.excludes_zero]
    known = ", ".join(signed) or "none"
    said = f"Kendall's tau of {len(associations)} measures with the gap over {trials} networks; "
    said += f"the sign of {known} is known"
    if trials < FEW:
        said += f"; below {FEW} networks intervals are wide, and a measure of no use may come out well by chance"
    elif len(associations) > 1:
        said += "; one interval in twenty misses zero by chance"
    if unfitted:
        said += f"; {unfitted} of the networks do not fit their training images, which changes measures and gap alike"
    return said


def summarize_correlations(trials: Sequence[Trial], run: Run) -> None:
    """A table and two figures, if there are networks enough to say anything."""
    associations = correlations(trials)
    if not associations or len(trials) < FEWEST:
        return
    said = sentence(associations, sum(not trial.metrics["fitted"] for trial in trials))
    run.table("correlations", list(_rows(associations)), title=said)
    run.figure("correlations", figures.correlations(associations), title=said)
    gap = values_of("gap", trials)
    points = {name: values_of(name, trials) for name in associations}
    run.figure("measures", figures.measures(points, gap), title="Each measure against the gap, a dot a network")


def _rows(associations: dict[str, Association]) -> Iterator[dict[str, Any]]:
    for name, each in associations.items():
        row: dict[str, Any] = {"measure": name, "networks": each.trials, "p_value": each.p_value}
        for way in ("kendall", "spearman", "pearson"):
            correlation = getattr(each, way)
            row |= {way: correlation.value, f"{way}_low": correlation.low, f"{way}_high": correlation.high}
        yield row
