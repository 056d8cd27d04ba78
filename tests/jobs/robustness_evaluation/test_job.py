"""The whole evaluation: against exact robustness, with Ray and without, interrupted and resumed, with bad input."""

import json
from collections import Counter
from typing import Any

import pytest
import torch

from jobs.common.models.classifiers import classifier
from jobs.robustness_evaluation.job import run
from service import models, spec
from service.errors import AssayError, InputError, ModelNotFoundError, SpecError
from service.execution import runner
from service.execution.runner import Execution
from service.models import CardDraft, TensorSpec
from service.run import Run
from service.store import Folder, open_store
from tests.jobs.common.attacks.linear import least_norms
from tests.jobs.killed import KilledAfterCells, check_resumed
from tests.jobs.robustness_evaluation.small import HERE, odd, params, tree
from tests.jobs.robustness_evaluation.subjects import DIGITS

SEARCHING = {"fab": {"kind": "fab", "targets": 4, "steps": 30}}


def rows(folder: Folder, table: str) -> list[dict[str, Any]]:
    return folder.read_table(f"tables/{table}.parquet").to_pylist()


# ---- what comes out -----------------------------------------------------------------------------------------------


def test_a_linear_model_keeps_exactly_what_it_can(make_run):
    handle, epsilons = make_run(), (0.02, 0.05, 0.08)
    attacks = {"pgd": {"kind": "pgd"}, "apgd_t": {"kind": "apgd_targeted", "steps": 60}, **SEARCHING}
    run(params(epsilons=[0.08, 0.02, 0.05], attacks=attacks, first=None, slice=250, show=2), handle)
    accuracy = {(row["attack"], row["epsilon"]): row for row in rows(handle.folder, "accuracy")}
    exact = {epsilon: DIGITS.robust("Linf", epsilon) for epsilon in epsilons}
    for epsilon in epsilons:
        share = float(exact[epsilon].double().mean())
        assert abs(accuracy["apgd_t", epsilon]["accuracy"] - share) <= 0.002
        assert abs(accuracy["fab", epsilon]["accuracy"] - share) <= 0.01
        worst = accuracy["worst case", epsilon]
        assert share <= worst["accuracy"] <= min(accuracy[name, epsilon]["accuracy"] for name in attacks)
        assert worst["low"] < worst["accuracy"] < worst["high"]
    successes = [row for row in rows(handle.folder, "images") if row["successful"]]
    assert not any(exact[row["epsilon"]][row["index"]] for row in successes), "no success where none is possible"

    scores = {row["attack"]: row for row in rows(handle.folder, "optimality")}
    assert scores["pgd"]["optimality"] < scores["apgd_t"]["optimality"] <= 1
    assert {name: row["searches"] for name, row in scores.items()} == {"pgd": 3, "apgd_t": 3, "fab": 1}
    assert scores["pgd"]["passes"] == pytest.approx(
        sum(accuracy["pgd", each]["queries"] + accuracy["pgd", each]["gradients"] for each in epsilons)
    )

    with torch.no_grad():
        predictions = DIGITS.model(DIGITS.images).argmax(1)
    clean = accuracy["no attack", 0.0]["accuracy"]
    assert clean == pytest.approx(float((predictions == DIGITS.labels).double().mean()))
    images = [row for row in rows(handle.folder, "images") if (row["attack"], row["epsilon"]) == ("pgd", 0.05)]
    assert [row["label"] for row in images] == DIGITS.labels.tolist()
    assert [row["prediction"] for row in images] == predictions.tolist()
    for row in images:
        wrong = row["label"] != row["prediction"]
        assert (row["distance"] == 0) == wrong and (row["distance"] <= 0.0501) == row["successful"]
        assert row["gradients"] <= 20 and (row["queries"] <= 22) and (row["gradients"] == 0) == wrong
    told = accuracy["pgd", 0.05]
    assert told["queries"] == pytest.approx(sum(row["queries"] for row in images) / 500)
    assert told["gradients"] == pytest.approx(sum(row["gradients"] for row in images) / 500)
    assert [row["epsilon"] for row in handle.rows] == [0.02, 0.05, 0.08]
    metrics = handle.metrics
    assert metrics["clean"] == clean and metrics["robust"] == accuracy["worst case", 0.08]["accuracy"]
    assert metrics["robust_pgd"] == accuracy["pgd", 0.08]["accuracy"]
    assert handle.folder.exists("figures/security_curves.png") and handle.folder.exists("figures/adversarials.png")
    assert not handle.written.warnings, "there is nothing to warn of"


def test_few_coordinates_are_enough(make_run):
    """In L0, one search for the fewest and a search at each number, against the exact numbers of a linear model."""
    handle, counts = make_run(), (1.0, 2.0, 4.0)
    attacks = {"fmn": {"kind": "fmn", "steps": 40}, "sparse_rs": {"kind": "sparse_rs", "queries": 5}}
    run(params(norm="L0", epsilons=list(counts), attacks=attacks, first=60, slice=1000, show=2), handle)
    least = least_norms(DIGITS.model, DIGITS.images[:60], DIGITS.labels[:60], "L0")
    accuracy = {(row["attack"], row["epsilon"]): row["accuracy"] for row in rows(handle.folder, "accuracy")}
    for count in counts:
        share = float((least > count).double().mean())
        assert share <= accuracy["fmn", count] <= share + 0.05 and share <= accuracy["sparse_rs", count]
    fewest = {row["index"]: row["distance"] for row in rows(handle.folder, "images") if row["attack"] == "fmn"}
    assert all(fewest[index] >= float(each) for index, each in enumerate(least))
    (scores, work) = (
        {row["attack"]: row[name] for row in rows(handle.folder, "optimality")} for name in ("optimality", "passes")
    )
    assert scores["sparse_rs"] < 0.9 < scores["fmn"] and work["sparse_rs"] < work["fmn"]
    assert any("the other attacks are too weak" in each for each in handle.written.warnings)


def test_a_search_for_the_least_norm_is_made_once_and_tells_all_epsilons(make_run):
    handle = make_run()
    run(params(attacks=SEARCHING, epsilons=[0.02, 0.2]), handle)
    by_epsilon = {epsilon: [] for epsilon in (0.02, 0.2)}
    for row in rows(handle.folder, "images"):
        by_epsilon[row["epsilon"]].append(row)
    assert [row["distance"] for row in by_epsilon[0.02]] == [row["distance"] for row in by_epsilon[0.2]]
    assert [row["successful"] for row in by_epsilon[0.02]] == [row["distance"] <= 0.02001 for row in by_epsilon[0.02]]
    assert {row["queries"] for row in by_epsilon[0.02]} == {None} and all(row["queries"] for row in by_epsilon[0.2])
    assert len({row["cell"] for row in cell_rows(handle)}) == 3, "one for each slice"
    (least,) = rows(handle.folder, "distances")
    for index, row in enumerate(by_epsilon[0.2]):  # exact robustness ends below what was found, and not far below
        distance = row["distance"]
        if distance:
            assert not DIGITS.robust("Linf", distance + 1e-4)[index]
    assert least["found"] == 1.0 and 0 < least["least"] <= least["quarter"] <= least["median"]


def cell_rows(handle: Run) -> list[dict[str, Any]]:
    """The cells of attacks that are kept."""
    folder = handle.folder / "cells" / "attacks"
    return [
        row
        for content in folder.names()
        for part in (folder / content).names()
        for row in (folder / content).read_table(part).to_pylist()
    ]


def test_the_result_of_a_slice_is_its_own(make_run):
    # another number of images, and attacks beside it: the slices that both have came out alike
    attacks = {"square": {"kind": "square", "queries": 30}}
    short, long = make_run("short"), make_run("long")
    run(params(attacks=attacks, first=40), short)
    run(params(attacks={"pgd": {"kind": "pgd", "steps": 2}, **attacks}), long)
    told = [row for row in rows(long.folder, "images") if row["attack"] == "square" and row["index"] < 40]
    assert rows(short.folder, "images") == told


def test_cells_that_fail_leave_an_upper_bound_and_are_tried_again(store_uri, tmp_path):
    def attacked() -> Counter[str]:
        return Counter((tmp_path / "attacked").read_text().split())

    tried = spec.build(
        {
            "job": "robustness_evaluation",
            "params": tree(
                network={"name": f"{HERE}:failing", "options": {"folder": str(tmp_path)}},
                attacks={"one_step": {"kind": "fgsm"}},
                epsilons=[0.15],
            ),
            "store": store_uri,
        }
    )
    state = runner.start(tried, Execution(serial=True))
    assert state.status == "partial" and "1 of 3 cells of attacks failed" in state.failure.message
    folder = open_store(store_uri) / "runs" / state.id / "trials" / "000"
    sentence = "one_step was not tried on 20 of 60 images, because cells failed: they count as robust, so"
    (warning,) = folder.read_json("trial.json")["warnings"]
    assert sentence in warning and "upper bound" in warning
    unseen = [row["index"] for row in rows(folder, "images") if row["successful"] is None]
    assert unseen == list(range(20, 40))
    before, counted = rows(folder, "accuracy")[1], attacked()
    assert counted == Counter({"0": 1, "20": 2, "40": 1})

    (tmp_path / "mended").touch()
    assert runner.resume(open_store(store_uri), state.id, Execution(serial=True)).status == "finished"
    assert attacked() - counted == Counter({"20": 1}), "what was there is not computed again"
    assert rows(folder, "accuracy")[1]["accuracy"] < before["accuracy"]
    assert all(row["successful"] is not None for row in rows(folder, "images"))


def test_killed_and_resumed_is_the_same_as_undisturbed(make_run):
    asked = params(attacks={"pgd": {"kind": "pgd", "steps": 3}, **SEARCHING}, epsilons=[0.05])
    check_resumed(run, asked, make_run, [KilledAfterCells], ("accuracy", "images", "distances"))


def test_masked_gradients_are_flagged(make_run):
    handle = make_run()
    attacks = {"one_step": {"kind": "fgsm"}, "square": {"kind": "square", "queries": 300}}
    run(params(network=odd("rounded"), attacks=attacks, epsilons=[0.1]), handle)
    first, *others = handle.written.warnings
    assert first.startswith("one_step at epsilon 0.1, 3 slices: the gradient of 58 of 58 samples is zero, so gradients")
    assert "run Square" in first and "Square lowered the robust accuracy" in "".join(others)


def test_logits_that_are_not_numbers_are_no_success_and_counted(make_run):
    handle = make_run()
    run(params(network=odd("lost"), attacks={"pgd": {"kind": "pgd", "steps": 3}}, epsilons=[0.3]), handle)
    row = rows(handle.folder, "accuracy")[1]
    right = 60
    assert (row["accuracy"], row["not_finite"]) == (right / 60, right)
    assert sum(each["not_finite"] for each in rows(handle.folder, "images")) == right
    (warning,) = handle.written.warnings
    assert f"3 slices: the logits of {right} of 60 samples were NaN or infinite" in warning


# ---- models of the store ------------------------------------------------------------------------------------------


def publish(
    store: Folder, name: str, task: str = "classification", inputs: tuple[TensorSpec, ...] = (), **settings: Any
) -> None:
    arguments = {"classes": 10, "channels": 1}
    draft = CardDraft(
        architecture="jobs.common.models.classifiers:digits_net",
        arguments=arguments,
        study="free_training",
        task=task,
        inputs=inputs,
        outputs=(),
        settings=settings,
        metrics={},
        description="untrained",
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        models.publish(store, name, classifier("digits_net", **arguments).state_dict(), draft)


@pytest.mark.slow  # what Ray computes equals what one process does: tests/service/test_fanout.py
def test_ray_equals_serial(tmp_path, monkeypatch, ray_session):
    # the store is named relative to this folder, in which no worker runs
    monkeypatch.chdir(tmp_path)
    publish(open_store("store"), "untrained")
    attacks = {"pgd": {"kind": "pgd", "steps": 5}, "square": {"kind": "square", "queries": 40}}
    whole = tree(
        network={"name": "untrained"}, data={"name": "digits"}, attacks=attacks, epsilons=[0.05, 0.6], first=200
    )
    fields = {"params": whole | {"slice": 50}, "resources": {"cpus": 2}, "store": "store"}
    tried = spec.build({"job": "robustness_evaluation", **fields})
    states = [runner.start(tried, Execution(serial=serial)) for serial in (True, False)]
    assert [state.status for state in states] == ["finished", "finished"], [state.failure for state in states]
    folders = [open_store("store") / "runs" / state.id / "trials" / "000" for state in states]
    for table in ("images", "accuracy"):
        serial, ray = ([{**row, "seconds": 0} for row in rows(folder, table)] for folder in folders)
        assert serial == ray
    assert {row["successful"] for row in rows(folders[0], "images") if row["distance"] != 0} == {True, False}


def test_a_model_of_the_store_of_the_run(store_uri):
    store = open_store(store_uri)
    publish(store, "untrained")
    publish(store, "untrained")
    fields = {"job": "robustness_evaluation", "store": store_uri}
    for name, evaluated in {"untrained": "untrained/2", "untrained/1": "untrained/1"}.items():
        state = runner.start(spec.build({**fields, "params": tree(network={"name": name})}), Execution(serial=True))
        assert state.status == "finished", state.failure
        folder = store / "runs" / state.id / "trials" / "000"
        assert {row["model"] for row in rows(folder, "accuracy")} == {evaluated}
    state = runner.start(spec.build({**fields, "params": tree(network={"name": "untraind"})}), Execution(serial=True))
    assert state.status == "failed" and "no model 'untraind' (did you mean 'untrained'?)" in state.failure.message


def test_labels_follow_the_classes_of_a_stored_model(make_run, store_uri):
    publish(open_store(store_uri), "net", classes=list("9876543210"))
    handle, attacks = make_run(), {"pgd": {"kind": "pgd", "steps": 2}}
    run(params(network={"name": "net"}, attacks=attacks), handle)
    assert [row["label"] for row in rows(handle.folder, "images")] == (9 - DIGITS.labels[:60]).tolist()
    with pytest.raises(InputError, match="of halves must be among those of model 'net/1', 9, 8, .*; it also has l, h"):
        run(params(network={"name": "net"}, data={"name": f"{HERE}:halves"}), make_run("other"))


def test_images_of_another_size_than_those_of_the_card_are_warned_of(make_run, store_uri):
    images = TensorSpec(name="images", datatype="FP32", shape=(-1, 1, 8, 9))
    publish(open_store(store_uri), "net", inputs=(images,))
    handle = make_run()
    run(params(network={"name": "net"}), handle)
    assert "images of test_digits and those that model 'net/1' was evaluated on differ: 1x8x8 and 1x8x9" in [
        *handle.written.warnings
    ]


def test_a_model_that_is_not_a_classifier(make_run, store_uri):
    publish(open_store(store_uri), "thinker", task="thinking")
    with pytest.raises(AssayError, match="the task of model 'thinker/1' must be classification; it is thinking"):
        run(params(network={"name": "thinker"}), make_run())
    with pytest.raises(ModelNotFoundError, match=r"'thinker' has no version 2 \(it has \[1\]\)"):
        run(params(network={"name": "thinker/2"}), make_run())


def test_several_trials_are_drawn_together(store_uri):
    variants = {"one": {"params.network": {"name": f"{HERE}:linear"}}, "other": {"params.network": odd("as it is")}}
    fields = {"job": "robustness_evaluation", "store": store_uri, "params": tree(), "sweep": {"variants": variants}}
    state = runner.start(spec.build(fields), Execution(serial=True))
    assert state.status == "finished", state.failure
    folder = open_store(store_uri) / "runs" / state.id
    assert folder.exists("figures/security_curves.png")
    assert {row["trial"] for row in rows(folder, "accuracy")} == {"one", "other"}


# ---- bad input ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"epsilons": [8]}, r"params.epsilons must be at most 1, since pixels .*; it is 8 .*: 8 of 255 is 0.0314\)"),
        ({"epsilons": [4, 0.1]}, "4 of 255 is 0.0157"),
        ({"epsilons": [0.1, 0.0]}, "params.epsilons must be above 0; it is 0"),
        ({"epsilons": [0.1, 0.1]}, "params.epsilons must name each once"),
        ({"epsilons": []}, "params.epsilons"),
        ({"epsilons": [float("inf")]}, "params.epsilons"),
        ({"attacks": {}}, "params.attacks"),
        (
            {"attacks": {"cw": {"kind": "carlini_wagner"}}},
            "attacks.cw.kind must be an attack that knows Linf",
        ),
        ({"attacks": {"p": {"kind": "pdg"}}}, "params.attacks.p"),
        ({"attacks": {"worst case": {"kind": "pgd"}}}, "params.attacks"),
        ({"attacks": {"p": {"kind": "pgd", "step": 3}}}, "step: unknown field.*did you mean 'steps'"),
        ({"slice": 0}, "params.slice"),
        ({"norm": "l2"}, "params.norm"),
        ({"data": {"name": "digit"}}, "unknown data set 'digit' .*did you mean 'digits'"),
        (
            {"network": {"name": "net/latest"}},
            r"model 'net/latest': 'latest' is not a version \(write NAME or NAME/VER",
        ),
        ({"network": {"name": "net", "options": {"width": 3}}}, "options: the model 'net' of the store has its own"),
        ({"network": {}}, "params.network.name: missing"),
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
        ({"network": odd("probabilities")}, "the model must return logits; it returns probabilities"),
        ({"network": odd("always in training")}, "the model must be in evaluation mode"),
        (
            {"network": odd("five classes")},
            r"labels\[.*\] must be at most 4, the last class|at least 10, the number of classes of test_d",
        ),
        ({"network": odd("two answers")}, r"with logits of shape \(1, any\); they are tuple"),
        ({"network": {"name": f"{HERE}:odd", "options": {"width": 3}}}, "refuses its options {'width': 3}: .*width"),
        ({"network": {"name": f"{HERE}:not_a_module"}}, "subjects:not_a_module' is a str, not a torch module"),
        ({"network": {"name": f"{HERE}:linaer"}}, "has no 'linaer'"),
        ({"network": {"name": "nowhere:build"}}, "model 'nowhere:build': cannot import 'nowhere'"),
        ({"data": {"name": "mnist_5k"}}, r"does not fit mnist_5k \(1 channel of 28x28\): .*shapes"),
        ({"data": {"name": f"{HERE}:bright"}}, r"pixels must be in \[0, 1\]; they are in \[0, 1.5\]"),
        ({"first": 501}, "first must be at most 500, the number of images of test_digits to test; it is 501"),
        ({"norm": "L2", "epsilons": [40.0]}, "epsilon must be at most 8, the largest distance .*40 of 255 is 0.157"),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
def test_what_does_not_fit_is_refused_in_a_sentence(changes, sentence, make_run):
    with pytest.raises(AssayError, match=sentence) as refused:
        run(params(**changes), make_run())
    assert "\n" not in str(refused.value)


def test_an_attack_that_compares_more_classes_than_there_are(make_run):
    attacks = {"dlr": {"kind": "apgd", "loss": "dlr"}}
    with pytest.raises(
        AssayError, match="the model must have at least 3 classes for apgd with these options; it has 2"
    ):
        run(params(network={"name": f"{HERE}:two"}, data={"name": f"{HERE}:halves"}, attacks=attacks), make_run())
