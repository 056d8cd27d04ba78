"""Basins as part of the study: measured, compared, killed and resumed, serial and on Ray; bad input."""

import math
from typing import Any

import pytest
import torch
from torch.nn import functional

from jobs.generalization.basins import measurement
from jobs.generalization.basins.measurement import divergence
from jobs.generalization.job import estimate, run
from jobs.generalization.params import Params
from service import spec
from service.cluster.tasks import RayTasks
from service.errors import InputError, SpecError
from service.execution import runner
from service.execution.runner import Execution
from service.planning.plan import trials
from service.planning.validation import validate
from service.spec import Resources
from service.store import Folder, open_store
from tests.jobs.elsewhere import Elsewhere
from tests.jobs.shared import changed

HERE = "tests.jobs.generalization.basins.subjects"
TRAINED = {
    "kind": "train",
    "classifier": {"name": "fully_connected", "options": {"hidden": [8]}},
    "training": {
        "epochs": 20,
        "batch": 30,
        "report_every": 20,
        "augmentation": {"padding": 0, "flip": False},
        "optimizer": {"kind": "adam", "learning_rate": 0.01},
    },
}


def tree(**changes: Any) -> dict[str, Any]:
    return changed(
        {
            "data": {"name": "swiss_roll", "train_limit": 60, "test_limit": 20},
            "network": {"kind": "model", "name": f"{HERE}:build"},
            "basins": {
                "rays": 12,
                "rays_per_cell": 5,
                "directions": ["filter", "gaussian", "adam", "hessian"],
                "cuts": [1.5, 0.9],
                "cap": 20.0,
                "prior": {},
                "learning_coefficient": {"chains": 3, "burn_in": 20, "draws": 30},
            },
        },
        changes,
    )


def params(**changes: Any) -> Params:
    return validate(Params, tree(**changes), "params")


def rows(folder: Folder, table: str) -> list[dict[str, Any]]:
    return folder.read_table(f"tables/{table}.parquet").to_pylist()


def test_the_basin_of_a_network_of_ones_own(make_run):
    handle = make_run()
    run(params(), handle)
    basins = rows(handle.folder, "basins")
    conventions = ["filter", "gaussian", "adam", "hessian"]
    assert [(row["convention"], row["cut"]) for row in basins] == [(c, cut) for c in conventions for cut in (1.5, 0.9)]
    for row in basins:
        assert row["n"] == 20 and row["filters"] == 7 and row["rays"] == 12
        assert row["radius_low"] <= row["radius"] <= row["radius_high"]
        assert row["log10_volume"] <= row["log10_volume_high"]
        assert math.isnan(row["log10_prior_mass"]) == (row["convention"] == "filter")
    for outer, inner in zip(basins[::2], basins[1::2], strict=True):
        assert outer["radius"] > inner["radius"] and outer["log10_volume"] > inner["log10_volume"]
    assert handle.metrics["radius_filter"] == basins[0]["radius"]
    assert handle.metrics["log10_volume_hessian"] == basins[6]["log10_volume"]
    assert len(rows(handle.folder, "rays")) == 8 * 12
    low, high = handle.metrics["learning_coefficient_low"], handle.metrics["learning_coefficient_high"]
    assert low <= handle.metrics["learning_coefficient"] <= high
    assert all(handle.folder.exists(f"figures/{name}.png") for name in ("radii", "chains"))


def test_a_divergence_is_that_of_the_predictions(make_run):
    own, moved = torch.randn(6, 4).log_softmax(1), torch.randn(6, 4)
    expected = functional.kl_div(moved.log_softmax(1), own, reduction="none", log_target=True).sum(1)
    torch.testing.assert_close(divergence(moved, own), expected)
    handle = make_run()
    run(params(basins__quantity="kl", basins__cuts=[0.01], basins__directions=["filter"], basins__prior=None), handle)
    (row,) = rows(handle.folder, "basins")
    assert row["quantity"] == "kl" and row["centre"] == pytest.approx(0, abs=1e-6) and 0 < row["radius"] < 20


def test_a_cut_that_the_network_is_not_below_is_refused(make_run):
    handle, name = make_run(), f"{HERE}:sharp"
    run(params(network__name=name, basins__cuts=[0.1, 1e4], basins__cap=50.0), handle)
    assert {row["cut"] for row in rows(handle.folder, "basins")} == {1e4}
    assert any("cuts must be above" in each and "left out" in each for each in handle.written.warnings)
    assert not any(name.startswith(("radius_", "log10_volume_")) for name in handle.metrics), "those of 0.1 are unknown"
    with pytest.raises(SpecError, match=r"cuts must be above .*, the loss of .* at its own weights; it is 0.1"):
        run(params(network__name=name, basins__cuts=[0.1]), make_run("refused"))
    centred = make_run("centred")
    run(params(network__name=name, basins__cuts=[0.1], basins__cuts_from="centre"), centred)
    assert {row["cuts_from"] for row in rows(centred.folder, "basins")} == {"centre"}


class Killed(BaseException):
    """What nothing catches."""


def test_killed_and_resumed_is_the_same_as_undisturbed(make_run, monkeypatch):
    undisturbed = make_run("undisturbed")
    run(params(), undisturbed)
    drawn: list[int] = []
    actual = measurement.rays

    def dying(*arguments: Any) -> Any:
        if len(drawn) == 7:
            raise Killed
        drawn.append(1)
        return actual(*arguments)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(measurement, "rays", dying)
        run(params(), make_run("killed"))
    again = make_run("killed")
    drawn.clear()
    monkeypatch.setattr(measurement, "rays", lambda *arguments: drawn.append(1) or actual(*arguments))
    run(params(), again)
    assert 4 * 3 - 7 <= len(drawn) < 4 * 3  # brief cells are computed several at a time, and kept together
    for table in ("rays", "basins", "chains"):
        assert repr(rows(again.folder, table)) == repr(rows(undisturbed.folder, table))


def test_how_rays_are_divided_into_cells_changes_nothing(make_run):
    rays = {"basins__directions": ["gaussian"], "basins__learning_coefficient": None}
    whole = make_run("whole")
    run(params(**rays, basins__rays_per_cell=12), whole)
    for size in (1, 4):
        divided = make_run(f"divided-{size}")
        run(params(**rays, basins__rays_per_cell=size), divided)
        assert rows(divided.folder, "rays") == rows(whole.folder, "rays")


def test_cells_that_are_computed_elsewhere_give_the_same(make_run):
    """The short form of the next test: no process is started."""
    check_equal(make_run, Elsewhere())


@pytest.mark.slow
def test_serial_equals_ray(make_run, ray_session):
    check_equal(make_run, RayTasks(Resources(cpus=2), 0, lambda progress: None))


def check_equal(make_run, executor):
    here, there = make_run("here"), make_run("there", executor=executor)
    for handle in (here, there):
        run(params(), handle)
    for table in ("rays", "basins", "chains"):
        assert repr(rows(there.folder, table)) == repr(rows(here.folder, table))


def test_networks_of_a_sweep_are_compared_where_they_can_be(store_uri):
    """A plain network beside a poisoned one; and one of more weights, which cannot be compared."""
    variants = {
        "plain": {"params.poison.share": 0.0},
        "poisoned": {"params.poison.share": 0.3},
        "wide": {"params.poison.share": 0.2, "params.network.classifier.options.hidden": [9]},
    }
    basins = {"rays": 6, "directions": ["filter", "gaussian"], "cuts": [30.0], "cap": 100.0}
    fields = {
        "params": tree(network=TRAINED, poison={"images": 20, "share": 0.0}, basins=basins),
        "sweep": {"variants": variants, "metric": "test_accuracy"},
        "store": store_uri,
    }
    swept = spec.build({"job": "generalization", **fields})
    state = runner.start(swept, Execution(serial=True))
    assert state.status == "finished", state.failure
    plain, poisoned, _ = (plan.id for plan in trials(swept))
    folder = open_store(store_uri) / "runs" / state.id
    compared = rows(folder, "comparison")
    named = [(row["reference"], row["network"], row["convention"]) for row in compared]
    assert named == [("plain", "poisoned", "filter"), ("plain", "poisoned", "gaussian")]
    for row, position in zip(compared, (0, 1), strict=True):
        large, small = (rows(folder / "trials" / trial, "basins")[position] for trial in (plain, poisoned))
        assert row["radius_ratio"] == pytest.approx(large["radius"] / small["radius"])
        assert row["log10_volume_gap"] == pytest.approx(large["log10_volume"] - small["log10_volume"])
        assert row["radius_ratio_low"] <= row["radius_ratio"] <= row["radius_ratio_high"]
    assert "basins to compare must be of one n; they are of 32 and 36" in folder.read("report.html").decode()
    assert all(folder.exists(f"figures/{name}.png") for name in ("radii", "basins"))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"basins__directions": ["filter", "filter"]}, "directions must name each once"),
        ({"basins__directions": ["gauss"]}, "directions"),
        ({"basins__cuts": [1.0, 1.0]}, "cuts must name each once"),
        ({"basins__cuts": [-1.0]}, "cuts must be above 0"),
        ({"basins__directions": ["filter"]}, "directions must be others than filter alone, as there is a prior"),
        ({"basins__rays": 1}, "rays"),
        ({"basins__cap": 0.0}, "cap"),
        ({"basins__scan": {"smallest": 1.0}}, "smallest"),
        ({"basins__learning_coefficient": {"chains": 1}}, "chains"),
        ({"basins__images": 61}, "basins.images must be at most 60, the number of images of swiss_roll; it is 61"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(changes, sentence, make_run):
    with pytest.raises(InputError, match=sentence.replace(".", r"\.")):
        run(params(**changes), make_run())


def test_an_estimate_counts_rays_and_chains():
    without, with_basins = estimate(params(basins=None, network=TRAINED)), estimate(params(network=TRAINED))
    assert without.pieces == 1 and with_basins.pieces == 4 * 3
    shown, others = (each.details["images shown besides"] for each in (with_basins, without))
    assert shown - others > 60 * (4 * 12 * 25 + 3 * 4 * 50)
    assert with_basins.multiply_adds > without.multiply_adds


def test_one_image_has_no_basin(make_run):
    with pytest.raises(InputError, match="two training images or more; there is one"):
        run(params(data__train_limit=1), make_run())
