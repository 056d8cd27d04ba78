"""What a run writes down of basins: tables, metrics and warnings of one network, and the networks beside each other."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from jobs.generalization.basins import drawing
from jobs.generalization.basins.basin import Basin, Measure, compare, doubts
from jobs.generalization.basins.learning_coefficient import Chains, LearningCoefficient
from jobs.generalization.basins.measurement import Measurement
from service.errors import InputError
from service.run import Run, Trial

RAY_COLUMNS = ("radius", "censored", "crossings", "not_finite")


@dataclass(frozen=True)
class Network:
    """A network of a trial, and its basins. share: of the poison in its objective."""

    label: str
    share: float
    seed: int
    basins: Sequence[Basin]
    coefficient: tuple[float, float, float] | None
    """the learning coefficient and its interval"""


def keep_basin(measurement: Measurement, cut: float, run: Run) -> None:
    """The rays, the basins and the chains of a network, as tables and metrics, and what limits them as warnings.

    cut: that metrics are of. A network that has no basin of it has no such metrics, as they would be no others' like.
    """
    basins = measurement.basins
    run.table("rays", _ray_rows(basins), title="Every ray: how far it is to the cut, and what happened on the way")
    run.table("basins", [basin.row() for basin in basins], title="Radius and volume of the basin, with 95 % intervals")
    metrics = {}
    for basin in (each for each in basins if each.measure.cut == cut):
        convention = basin.measure.convention
        metrics[f"radius_{convention}"] = basin.mean_radius.value
        metrics[f"log10_volume_{convention}"] = basin.log10_volume.value
    for sentence in doubts(basins):
        run.warn(sentence)
    run.figure("radii", drawing.histograms([(None, basin) for basin in basins]), title="How far it is to the cut")
    if measurement.coefficient is not None and measurement.chains is not None:
        metrics |= _keep_coefficient(measurement.coefficient, measurement.chains, run)
    run.log(step=run.step, **metrics)


def _keep_coefficient(coefficient: LearningCoefficient, chains: Chains, run: Run) -> dict[str, float]:
    rows = [
        {"chain": chain, "learning_coefficient": float(each), "distance": float(distance)}
        for chain, (each, distance) in enumerate(zip(coefficient.chains, chains.distance, strict=True))
    ]
    run.table("chains", rows, title="The learning coefficient by every chain, and how far each went")
    run.figure("chains", drawing.traces(chains.excess), title="The loss along the chains, above that of the network")
    for sentence in coefficient.doubts():
        run.warn(sentence)
    interval = coefficient.estimate
    return {
        "learning_coefficient": interval.value,
        "learning_coefficient_low": interval.low,
        "learning_coefficient_high": interval.high,
    }


def networks_of(trials: Sequence[Trial]) -> list[Network]:
    """The networks of trials that have measured basins."""
    networks = []
    for trial in trials:
        if rows := trial.table("basins"):
            names = ("learning_coefficient", "learning_coefficient_low", "learning_coefficient_high")
            interval = tuple(trial.metrics[name] for name in names if name in trial.metrics)
            coefficient = (interval[0], interval[1], interval[2]) if len(interval) == 3 else None
            basins = _basins_of(rows, trial.table("rays"))
            networks.append(Network(trial.label, trial.params.poison.share, trial.seed, basins, coefficient))
    return networks


def keep_comparison(networks: Sequence[Network], run: Run) -> None:
    """Radii and volumes of all networks in one figure, and each beside the one of least poison, of its seed if any."""
    shown = [(network.label, basin) for network in networks for basin in network.basins]
    run.figure("radii", drawing.histograms(shown), title="How far it is to the cut along random rays")
    if len({network.share for network in networks}) > 1:
        points = [
            drawing.Point(network.share, basin, network.coefficient) for network in networks for basin in network.basins
        ]
        run.figure("basins", drawing.against_share(points), title="Radius and volume against the share of poison")
    if rows := [row for network in networks for row in _compared(network, networks, run)]:
        title = "Every basin against that of least poison: how much smaller it is, with 95 % intervals over the rays"
        run.table("comparison", rows, title=title)


def _compared(network: Network, networks: Sequence[Network], run: Run) -> list[dict[str, Any]]:
    """A row for each basin that the reference has as well; none for the reference itself."""
    least = min(each.share for each in networks)
    references = [each for each in networks if each.share == least]
    reference = next((each for each in references if each.seed == network.seed), references[0])
    rows = []
    for basin in network.basins if network.share > least else ():
        for other in reference.basins:
            if (other.measure.convention, other.measure.cut) == (basin.measure.convention, basin.measure.cut):
                try:
                    comparison = compare(other, basin)
                except InputError as error:
                    run.warn(f"{reference.label} and {network.label}: {error.message}")
                    continue
                names = {"reference": reference.label, "network": network.label, "share": network.share}
                rows.append(names | comparison.row())
    return rows


def _ray_rows(basins: Sequence[Basin]) -> list[dict[str, Any]]:
    return [
        {"convention": basin.measure.convention, "cut": basin.measure.cut, "ray": ray}
        | {name: getattr(basin, name)[ray].item() for name in RAY_COLUMNS}
        | {"log_radius": float(np.log(basin.radius[ray]))}
        for basin in basins
        for ray in range(len(basin.radius))
    ]


def _basins_of(rows: Sequence[dict[str, Any]], rays: Sequence[dict[str, Any]]) -> list[Basin]:
    """The basins that such tables are of, without their priors."""
    basins = []
    for row in rows:
        own = [ray for ray in rays if (ray["convention"], ray["cut"]) == (row["convention"], row["cut"])]
        columns: dict[str, Any] = {name: np.array([ray[name] for ray in own]) for name in RAY_COLUMNS}
        measure = Measure(**{each.name: row[each.name] for each in fields(Measure)})
        rest = {name: row[name] for name in ("filters", "log_scale", "centre", "seed")}
        basins.append(Basin(measure=measure, **rest, **columns))
    return basins
