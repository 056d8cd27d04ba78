"""The whole study: exact curves, the exact law of resolutions, the alarm; killed and resumed; bad input."""

import json
from typing import Any

import pytest

from jobs.inevitability.job import estimate, run, summarize
from jobs.inevitability.params import Params
from service.errors import AssayError, SpecError
from service.planning.validation import validate
from service.run import Run, Trial
from tests.jobs.common.attacks.linear import least_norms
from tests.jobs.inevitability.small import HERE, LINEAR, TRAINED, params
from tests.jobs.inevitability.subjects import COUNT, DIGITS
from tests.jobs.killed import KilledAfterCells, KilledAtReport, check_resumed

FEW = {"train_limit": 40, "test_limit": 20}


def rows(handle: Run, table: str) -> list[dict[str, Any]]:
    return handle.folder.read_table(f"tables/{table}.parquet").to_pylist()


def exact(norm: str, epsilon: float) -> float:
    """The share of images that the linear model keeps, whatever the attack."""
    kept = DIGITS.robust(norm, epsilon) if epsilon else DIGITS.model(DIGITS.images).argmax(1) == DIGITS.labels
    return float(kept[:COUNT].double().mean())


def test_the_curve_of_a_linear_model_is_exact(make_run):
    handle = make_run()
    attacks = {"apgd_t": {"kind": "apgd_targeted", "steps": 12}, "fab": {"kind": "fab", "targets": 3, "steps": 12}}
    run(params(curves__attacks=attacks), handle)
    for row in rows(handle, "curves"):
        assert abs(row["accuracy"] - exact(row["norm"], row["epsilon"])) <= 0.02
        assert row["low"] <= row["accuracy"] <= row["high"] and row["images"] == COUNT
    summary = {row["norm"]: row for row in rows(handle, "summary")}
    for norm, start in (("Linf", 0.05), ("L2", 0.3)):
        median = summary[norm]["median_distance"]
        assert exact(norm, 0.97 * median) > 0.5 >= exact(norm, 1.03 * median) and median > start / 2
    assert handle.metrics["clean_linear"] == exact("L2", 0.0) and handle.metrics["alarms"] == 0
    assert handle.metrics["robust_L2_linear"] == rows(handle, "curves")[-1]["accuracy"]


def test_a_curve_in_l0_is_one_search(make_run):
    """Sigma-zero against the exact number of pixels that the linear model takes; a bound for few pixels beside it."""
    handle = make_run()
    bounds = {"densities": [{"kind": "quantised", "levels": 17}], "samples": 0, "split": "test"}
    attacks = {"sigma_zero": {"kind": "sigma_zero", "steps": 100}}
    run(params(epsilons={"L0": [2, 4, 8]}, curves__attacks=attacks, bounds=bounds), handle)
    images, labels = DIGITS.images[:COUNT], DIGITS.labels[:COUNT]
    needed = least_norms(DIGITS.model, images, labels, "L0")
    for row in rows(handle, "curves"):
        assert row["accuracy"] == pytest.approx(float((needed > row["epsilon"]).double().mean()), abs=0.05)
    assert {row["norm"] for row in rows(handle, "bounds")} == {"L0"}
    assert {row["diameter"] for row in rows(handle, "bounds")} == {64.0}


def test_averaged_networks_have_identical_curves(make_run):
    """Exactly, image for image: the same epsilon in Linf, b times it in L2."""
    handle = make_run()
    run(params(resolutions=[1, 2, 4], averaged=True, curves__fixed=True), handle)
    gaps = rows(handle, "resolutions")
    assert {(row["resolution"], row["norm"]) for row in gaps} == {(b, n) for b in (2, 4) for n in ("Linf", "L2")}
    assert all(row["gap"] == 0 and row["kind"] == "averaged" for row in gaps)
    assert all(row["fixed_gain"] > 0 for row in gaps if row["norm"] == "L2")
    assert handle.folder.exists("figures/resolutions.png")
    medians = [row for row in rows(handle, "summary") if row["norm"] == "L2"]
    for row in medians[1:]:
        assert row["scaled_median"] == pytest.approx(medians[0]["median_distance"], rel=1e-4)
        assert row["relative_median"] == pytest.approx(medians[0]["relative_median"], rel=1e-4)


def test_a_density_that_is_not_that_of_the_data_raises_the_alarm(make_run):
    """Digits are not uniform: were they, no network could keep as many as the linear model does."""
    handle = make_run()
    known = {"densities": [{"kind": "known", "log_density": 0.0}], "samples": 1000, "split": "test"}
    run(params(bounds=known, epsilons={"L2": [0.3]}), handle)
    (sentence,) = [each for each in handle.written.warnings if "above the ceiling" in each]
    assert sentence.endswith("the attack is too weak, or the data are not what the bound supposes")
    assert handle.metrics["alarms"] == 1
    assert sum(row["share"] for row in rows(handle, "shares")) == pytest.approx(1)
    assert {row["verdict"] for row in rows(handle, "bounds")} == {"useful"} and rows(handle, "facts")


def test_the_picture_is_drawn_from_the_tables(make_run):
    handle, summary = make_run(), make_run("summary")
    bounds = {"densities": [{"kind": "quantised", "levels": 17}], "samples": 100, "split": "test"}
    examples = {"images": 2, "budgets": [{"norm": "L2", "epsilon": 0.5}, {"norm": "Linf", "epsilon": 0.1}]}
    asked = params(bounds=bounds, concentration={"alpha": 0.1}, examples=examples)
    run(asked, handle)
    assert handle.folder.exists("figures/examples.png")
    described = {"id": "a", "label": "a", "variant": None, "seed": 0, "overrides": {}, "best": False}
    trial = Trial(handle.folder, params=asked, status="finished", metrics=handle.metrics, **described)
    summarize([trial], summary)
    assert summary.folder.exists("figures/inevitability.png")
    assert {row["trial"] for row in rows(summary, "summary")} == {"a"}
    assert {row["source"] for row in rows(handle, "ceilings")} == {"bound", "concentration"}
    assert all(row["value"] == 1 for row in rows(handle, "ceilings") if row["source"] == "bound")


def test_ceilings_without_networks(make_run):
    handle = make_run()
    run(params(networks={}, curves=None, concentration={"alpha": 0.1}), handle)
    assert not handle.folder.exists("tables/curves.parquet") and rows(handle, "concentration")


def test_a_class_that_is_never_predicted_is_warned_of(make_run):
    handle = make_run()
    run(params(networks={"linear": {"kind": "model", "name": f"{HERE}:never_nine"}}), handle)
    assert "linear names the class 9 for none of the images" in handle.written.warnings


def test_weak_attacks_are_warned_of_and_curves_never_rise(make_run):
    """One step without a projection on the way overshoots: at a large epsilon it breaks fewer images."""
    handle = make_run()
    fgsm = {"fgsm": {"kind": "fgsm"}}
    run(
        params(curves__attacks=fgsm, epsilons={"Linf": [0.3, 0.6, 1.0]}, networks={"mlp": TRAINED}, data=FEW, slice=20),
        handle,
    )
    accuracies = [row["accuracy"] for row in rows(handle, "curves")]
    assert accuracies == sorted(accuracies, reverse=True)


# ---- training, killed and resumed -------------------------------------------------------------------------------


class KilledInSecondTraining(KilledAtReport):
    reports = 3


def test_killed_and_resumed_is_the_same_as_undisturbed(make_run):
    """In the middle of the second training, and with the attacks computed."""
    asked = params(
        networks={"mlp": TRAINED},
        resolutions=[1, 2],
        averaged=True,
        data={"train_limit": 40, "test_limit": 20},
        slice=10,
        generated={"images": 10, "samples": 50},
    )
    tables = ("curves", "summary", "resolutions", "generated", "generated_curves")
    check_resumed(run, asked, make_run, [KilledInSecondTraining, KilledAfterCells], tables)


def test_networks_that_were_trained_are_saved(make_run):
    handle = make_run()
    run(
        params(networks={"mlp": TRAINED}, resolutions=[1, 2], data={"train_limit": 40, "test_limit": 20}, slice=20),
        handle,
    )
    staged = {artefact.path for artefact in handle.written.artefacts.values() if artefact.kind == "model"}
    assert len(staged) == 2 and any("digits-mlp-x2" in path for path in staged), staged


# ---- bad input --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"resolutions": [1, 1.5]}, "params.resolutions.1 must be a whole number; it is 1.5"),
        ({"resolutions": [2, 0]}, "params.resolutions"),
        ({"resolutions": [2, 2]}, "params.resolutions must name each once"),
        ({"resolutions": [2], "averaged": True}, "params.resolutions must hold 1, where averaged networks come from"),
        ({"epsilons": {"Linf": [8]}}, "params.epsilons.Linf must be at most 1, since pixels .*; it is 8"),
        ({"epsilons": {"L2": [0.0]}}, "params.epsilons.L2 must be above 0; it is 0"),
        ({"epsilons": {"L2": [-1.0]}}, "params.epsilons.L2 must be above 0; it is -1"),
        ({"epsilons": {"L2": [float("nan")]}}, "params.epsilons"),
        ({"epsilons": {"L2": [0.1, 0.1]}}, "params.epsilons.L2 must name each once"),
        ({"epsilons": {"L3": [0.1]}}, "params.epsilons"),
        ({"epsilons": {"L0": [1.5]}}, "params.epsilons.L0 must be a whole number of coordinates in L0; it is 1.5"),
        ({"networks": {}}, "params.networks must name at least one for curves"),
        ({"networks": {"Linear": LINEAR}}, "params.networks"),
        ({"curves": {"attacks": {"cw": {"kind": "carlini_wagner"}}}}, "attacks must hold an attack that knows Linf"),
        ({"networks": {"a": {**TRAINED, "scaled": ["depth"]}}}, "scaled must name options of the classifier"),
        (
            {"networks": {"a": {**TRAINED, "method": {"kind": "free", "replay": 9}}}},
            "networks.a.*method.replay must be at most 6, the number of updates; it is 9",
        ),
        ({"examples": {"network": "other", "budgets": [{"epsilon": 0.1}]}}, "examples.network must be one of networks"),
        (
            {"examples": {"budgets": [{"epsilon": 0.1, "attack": {"kind": "carlini_wagner"}}]}},
            "examples.budgets.0.attack.kind must be an attack that knows Linf",
        ),
        ({"examples": {"budgets": [{"epsilon": 8}]}}, "params.examples.budgets.0.epsilon must be at most 1, since"),
        ({"bounds": {"densities": [{"kind": "known", "log_density": -1.0}]}}, "log_density"),
        ({"bounds": {"densities": [{"kind": "kde"}]}}, "params.bounds.densities"),
        ({"concentration": {"alpha": 1.0}}, "params.concentration.alpha"),
        ({"concentration": {"seeds": [0, 1, 0]}}, "params.concentration.seeds must name each once; it is .0, 1, 0"),
        (
            {"epsilons": {"L2": [0.5]}, "concentration": {"methods": {"a": {"kind": "boxes"}}}},
            "concentration.methods.a.kind must be a search that knows L2, of epsilons; it is 'boxes'",
        ),
        (
            {"epsilons": {"L0": [2]}, "curves": None, "concentration": {}},
            "concentration.methods.half_spaces.kind must be a search that knows L0, of epsilons",
        ),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
def test_parameters_that_cannot_work_are_refused_in_a_sentence(changes, sentence):
    with pytest.raises(SpecError, match=sentence) as refused:
        params(**changes)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"epsilons": {"L2": [9.0]}}, "epsilon must be at most 8, the largest distance"),
        ({"epsilons": {"L0": [65]}, "curves": {"attacks": {"s": {"kind": "sigma_zero"}}}}, "at most 64, the largest"),
        ({"data": {"name": f"{HERE}:bright"}}, "from 0 to 1; they are from"),
        ({"data": {"name": "digits_16"}}, "does not fit digits_16"),
        (
            {"networks": {"a": {**TRAINED, "scaled": []}}, "resolutions": [1, 2]},
            "'mlp' does not fit|'a x2' does not fit",
        ),
        (
            {
                "networks": {"mlp": TRAINED},
                "examples": {"budgets": [{"epsilon": 0.1}, {"norm": "L2", "epsilon": 9.0}]},
            },
            "examples.budgets.1.epsilon must be at most 8, the largest distance",
        ),
        (
            {"bounds": {"split": "test", "densities": [{"kind": "nearest_neighbours", "k": 50}]}},
            "images of a class must be at least 51 for this estimate",
        ),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
def test_what_does_not_fit_is_refused_in_a_sentence(changes, sentence, make_run):
    with pytest.raises(AssayError, match=sentence) as refused:
        run(params(**changes), handle := make_run())
    assert "\n" not in str(refused.value) and not handle.step, "before a network is trained"


def test_concentric_spheres_are_a_part_of_their_own(make_run):
    handle, summary = make_run(), make_run("summary")
    spheres = {"dimensions": [60], "width": 60, "updates": 150, "samples": 2000, "attacked": 20, "steps": 40}
    asked = validate(Params, {"data": {"name": f"{HERE}:digits"}, "spheres": spheres}, "params")
    run(asked, handle)
    measured = rows(handle, "spheres")
    assert [row["sphere"] for row in measured] == ["inner", "outer"]
    assert all(row["mean_distance"] < row["highest_ceiling"] for row in measured)
    assert 0 < handle.metrics["spheres"] < 1 and handle.metrics["alarms"] == 0 and not handle.written.warnings
    described = {"id": "a", "label": "a", "variant": None, "seed": 0, "overrides": {}, "best": False}
    trial = Trial(handle.folder, params=asked, status="finished", metrics=handle.metrics, **described)
    summarize([trial], summary)
    assert summary.folder.exists("figures/spheres.png") and not summary.folder.exists("figures/inevitability.png")
    estimated = estimate(asked)
    assert estimated.details["networks for spheres"] == estimated.pieces == 1 and estimated.core_seconds > 0
