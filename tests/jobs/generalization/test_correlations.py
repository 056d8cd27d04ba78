"""Curvature at networks of the study, and what goes together with the gap: in exact order, in none, over few."""

from typing import Any

import numpy as np
import pytest

from jobs.common.metrics.correlation import FEW, FEWEST
from jobs.generalization.correlations import correlations, measures_of, sentence, summarize_correlations
from jobs.generalization.job import estimate, run, summarize
from service.run import Trial
from tests.jobs.generalization.test_job import params, table, trial

SPECTRA = {"trace_probes": 4, "density_probes": 2, "density_steps": 4, "layers": False, "sharpness": {"steps": 2}}


def trials(make_run: Any, metrics: dict[str, np.ndarray], gap: np.ndarray) -> list[Trial]:
    """Networks with these metrics, which nobody trained."""
    made = []
    for index, each in enumerate(gap):
        handle = make_run(f"trial-{index}")
        values = {name: float(of[index]) for name, of in metrics.items()}
        handle.log(step=0, gap=each, fitted=1.0, **values)
        made.append(trial(handle, params(), str(index)))
    return made


def test_curvature_of_networks_that_are_trained_and_of_ones_own(make_run: Any) -> None:
    ended = []
    for name, changes in (
        ("trained", {"network__training__epochs": 1}),
        ("own", {"network": {"kind": "model", "name": "tests.jobs.generalization.test_correlations:own"}}),
    ):
        handle, asked = make_run(name), params(spectra=SPECTRA, **changes)
        run(asked, handle)
        names = ("trace", "largest_eigenvalue", "principal_curvature", "worst_sharpness", "average_sharpness")
        assert all(np.isfinite(handle.metrics[each]) for each in names)
        assert table(handle.folder, "spectra")[0]["trace"] == handle.metrics["trace"]
        handle.flush()
        ended.append(trial(handle, asked, name))
    whole = make_run("whole")
    summarize(ended, whole)
    assert whole.folder.exists("figures/spectra.png") and not whole.folder.exists("figures/correlations.png")


def own() -> Any:
    from jobs.common.models.classifiers import classifier

    options = {"hidden": [4], "single": True, "mean": [0.5, 0.5], "std": [0.03, 0.03]}
    return classifier("fully_connected", classes=2, channels=2, **options)


def test_a_measure_in_the_order_of_the_gap_and_one_in_none(make_run: Any) -> None:
    gap = np.linspace(0, 0.5, 24)
    noise = np.random.default_rng(0).permutation(24).astype(float)
    given = {"trace": np.exp(9 * gap), "log10_volume_filter": -gap, "radius_filter": noise, "test_accuracy": 1 - gap}
    networks = trials(make_run, given, gap)
    assert measures_of(networks) == ["trace", "log10_volume_filter", "radius_filter"], "an accuracy is no measure"
    found = correlations(networks)
    assert found["trace"].kendall.value == pytest.approx(1)
    assert found["log10_volume_filter"].kendall.value == pytest.approx(-1)
    assert not found["radius_filter"].kendall.excludes_zero
    said = sentence(found, 0)
    assert "3 measures with the gap over 24 networks; the sign of trace, log10_volume_filter is known" in said
    assert "one interval in twenty" in said
    assert "2 of the networks do not fit" in sentence(found, 2)


def test_few_networks_are_said_to_be_few(make_run: Any) -> None:
    networks = trials(make_run, {"trace": np.arange(float(FEWEST))}, np.arange(float(FEWEST)))
    whole = make_run("whole")
    summarize_correlations(networks, whole)
    assert all(whole.folder.exists(f"figures/{name}.png") for name in ("correlations", "measures"))
    assert table(whole.folder, "correlations")[0]["networks"] == FEWEST
    titles = [artefact.title for artefact in whole.written.artefacts.values()]
    assert any(f"below {FEW} networks intervals are wide" in title for title in titles)


@pytest.mark.parametrize("count", [1, FEWEST - 1])
def test_nothing_is_compared_where_nothing_can_be_said(make_run: Any, count: int) -> None:
    whole = make_run("whole")
    summarize_correlations(trials(make_run, {"trace": np.arange(float(count))}, np.arange(float(count))), whole)
    assert not whole.written.artefacts


def test_products_are_part_of_what_a_network_costs() -> None:
    plain, bent = estimate(params()), estimate(params(spectra={**SPECTRA, "images": 30}))
    assert bent.core_seconds > plain.core_seconds
    shown = bent.details["images shown besides"] - plain.details["images shown besides"]
    whole = 2 * 33 + 2 * 4 + 33 + 4 + 2 * 2 / 3 + 20 / 9
    assert shown == pytest.approx(9 * 30 * whole, abs=1)
