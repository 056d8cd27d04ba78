"""The whole study on a tiny scale, its victims and attacks, and parameters that cannot work."""

import json
import math
import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jobs.common.models.classifiers import classifier
from jobs.poison_frogs import illustrations
from jobs.poison_frogs.job import estimate, run, summarize
from jobs.poison_frogs.params import Params
from jobs.poison_frogs.poisons import export
from service import models
from service.errors import InputError, SpecError
from service.execution.checkpoints import decode
from service.planning.validation import validate
from service.run import Run, Trial
from service.store import Folder, open_store
from tests.jobs.shared import draft

SMALL = {"name": "digits_16_net", "options": {"side": 8, "size": 128}}
COLLISION = {"kind": "feature_collision", "profile": "paper"}
END_TO_END = {"kind": "feature_collision", "profile": "code_end_to_end"}
OPTIMIZER = {"kind": "adam", "learning_rate": 3e-3, "weight_decay": 0.0}
TRAINED = {
    "kind": "train",
    "classifier": SMALL,
    "training": {"epochs": 8, "batch": 20, "optimizer": OPTIMIZER, "augmentation": {"padding": 0, "flip": False}},
}
TUNED = {"kind": "fine_tune", "epochs": 2, "batch": 50, "optimizer": OPTIMIZER}
TREE = {
    "data": {"name": "digits", "train_limit": 400, "test_limit": 150},
    "network": TRAINED,
    "task": ["3", "8"],
    "pairs": [{"target": "3", "base": "8"}, {"target": "8", "base": "3"}],
    "targets": {"count": 5},
    "attack": {"kind": "feature_collision", "profile": "paper", "iterations": 60, "step": 0.01},
    "show": 2,
}
# a benchmark: its setups name all that the others of TREE name
BENCHMARK = {
    **{"pairs": [], "task": [], "targets": {}, "setups": {"file": "x", "size": 100}},
    "attack": {"kind": "polytope", "steps": 30, "epsilon": 8 / 255},
}


def params(**changes: Any) -> Params:
    return validate(Params, {**TREE, **changes}, "params")


def table(folder: Folder, name: str) -> list[dict[str, Any]]:
    return folder.read_table(f"tables/{name}.parquet").to_pylist()


def by(rows: list[dict[str, Any]], *names: str) -> dict[Any, dict[str, Any]]:
    return {tuple(row[name] for name in names): row for row in rows}


def test_one_poison_takes_its_target_where_features_are_frozen(make_run):
    handle = make_run()
    victims = {"head": {"kind": "head"}, "bound": {"kind": "head", "l2": 1.0}}
    knn = {"knn": {"kind": "deep_knn", "k": 7}}
    run(params(victims=victims, defences=knn, repeats=2, export=True), handle)
    metrics = handle.metrics
    assert metrics["success"] >= 0.8 and metrics["success"] == metrics["success_head"]
    assert metrics["success_bound"] < metrics["success"], "a strong penalty does not fit a single image"
    assert (metrics["unpoisoned"], metrics["flipped"], metrics["fitted"]) == (0, 1, 1)
    assert metrics["low"] < metrics["success"] <= metrics["high"] and metrics["collision"] < metrics["neighbour"]
    assert metrics["left_knn"] < metrics["success"] and metrics["recall_knn"] > 0.5
    assert abs(metrics["accuracy_drop"]) < 0.1 and metrics["rotation"] > 1

    rows = by(table(handle.folder, "success"), "victim", "defence", "control")
    assert rows["head", "", "poison"]["n"] == rows["head", "", "no poison"]["n"] == 10 * 2
    assert ("head", "knn", "flipped label") not in rows and ("bound", "knn", "poison") in rows
    fell = sum(row["verdict"] == "base class" for row in table(handle.folder, "targets") if row["control"] == "poison")
    assert fell == sum(row["base_class"] for key, row in rows.items() if key[2] == "poison")
    poisons = table(handle.folder, "poisons")
    assert len(poisons) == 10 and all(row["stopped"] == "iterations" for row in poisons)
    assert {row["class"] for row in table(handle.folder, "targets")} == {"3", "8"}
    for name in ("poisons", "success", "histograms", "features", "distances"):
        assert handle.folder.exists(f"figures/{name}.png")
    folder = Path(handle.folder.path) / f"files/poisons/0000_target_{poisons[0]['target']}"
    exported = export.read(folder)
    assert exported.bases == (poisons[0]["base"],) and exported.labels == (8,) and exported.base_split == "test"
    listed = {path for path in handle.written.artefacts if path.startswith("files/poisons/")}
    assert len(listed) == 10 * 3, "a target, a poison and an index each are artefacts of the run"
    staged = decode(handle.folder.read("models/digits-digits-16-net-frogs.safetensors"))
    assert staged["draft"]["study"] == "poison_frogs"
    (warning,) = handle.written.warnings
    assert warning.startswith("bound: a penalty of 1 keeps a head")


def test_networks_learn_in_all_layers_or_afresh(make_run):
    handle = make_run()
    fresh = {"kind": "scratch", "epochs": 1, "batch": 50, "optimizer": OPTIMIZER}
    other = {**fresh, "classifier": {"name": "fast_mnist", "options": {"side": 8}}}
    run(params(victims={"tuned": TUNED, "fresh": fresh, "other": other}, poisons=[1, 3], targets={"count": 2}), handle)
    rows = by(table(handle.folder, "success"), "victim", "control", "poisons")
    assert rows["tuned", "poison", 3]["rotation"] > 0 and math.isnan(rows["fresh", "poison", 3]["rotation"])
    assert all(rows[name, "flipped label", 3]["n"] == 4 for name in ("tuned", "fresh", "other"))
    epochs = table(handle.folder, "epochs")
    assert len(epochs) == 4 * 2 * (2 + 1 + 1) and {row["epoch"] for row in epochs} == {1, 2}


@pytest.mark.parametrize(
    "attack",
    [
        {"kind": "polytope", "steps": 20, "epsilon": 0.5, "watermark": 0.2},
        {"kind": "polytope", "steps": 5, "epsilon": 0.3, "objective": "convex_polytope"},
        {"kind": "gradient_matching", "steps": 4, "restarts": 2, "epsilon": 0.3, "shift": 1},
    ],
    ids=lambda attack: f"{attack['kind']}-{attack['steps']}",
)
def test_poisons_of_a_target_can_be_made_together(make_run, attack, monkeypatch):
    monkeypatch.setattr(illustrations, "draw", lambda *_: None)
    handle = make_run()
    network = {**TRAINED, "training": {**TRAINED["training"], "epochs": 2}}
    several = {"surrogates": 1, "attack": attack, "poisons": [2, 3], "targets": {"count": 1, "only_correct": False}}
    run(params(network=network, **several), handle)
    rows = table(handle.folder, "poisons")
    assert len(rows) == 2 * (2 + 3) and max(row["Linf"] for row in rows) <= attack["epsilon"] + 0.5 / 255 + 1e-6
    assert {"train_loss", "surrogate_1_train_loss"} <= handle.metrics.keys()
    grey = make_run("grey")
    run(params(network=network, grey_box=True, **several), grey)
    assert table(grey.folder, "poisons") != rows, "without the attacked network they come out otherwise"


def setups_of_digits(count: int, bases: int) -> list[dict[str, Any]]:
    """As they are published: targets of 3 in the test split, bases of 8 in the training split."""
    learnt, test = (params().data.load(split) for split in ("train", "test"))
    targets, others = ((each.labels == label).nonzero().flatten().tolist() for each, label in ((test, 3), (learnt, 8)))
    told = ("target class", "target index", "base class", "base indices")
    return [
        dict(zip(told, (3, targets[at], 8, others[at * bases : (at + 1) * bases]), strict=True)) for at in range(count)
    ]


def test_a_benchmark_is_run_from_its_setups(make_run, tmp_path):
    """Poisons take the place of their bases, in a training set of the setup's own."""
    published = setups_of_digits(3, 4)
    file = tmp_path / "setups.pickle"
    file.write_bytes(pickle.dumps([{**each, "base indices": np.array(each["base indices"])} for each in published]))
    setups = {"file": str(file), "first": 1, "size": 200}
    fresh = {"kind": "scratch", "epochs": 1, "batch": 50, "optimizer": OPTIMIZER}
    asked = params(
        **{**BENCHMARK, "setups": setups, "victims": {"head": {"kind": "head"}, "fresh": fresh}, "export": True}
    )
    handle = make_run()
    run(asked, handle)
    rows = table(handle.folder, "targets")
    assert {row["target"] for row in rows} == {each["target index"] for each in published[1:]}
    assert Counter((row["victim"], row["control"], row["poisons"]) for row in rows) == {
        (victim, control, poisons): 2
        for victim in ("head", "fresh")
        for control, poisons in (("poison", 4), ("no poison", 0), ("flipped label", 4))
    }
    poisons = table(handle.folder, "poisons")
    assert [row["base"] for row in poisons] == [base for each in published[1:] for base in each["base indices"]]
    assert max(row["Linf"] for row in poisons) <= 8.5 / 255 + 1e-6 + 0.5 / 255, (
        "these images do not have 256 shades: their bases are rounded as well"
    )
    exported = export.read(Path(handle.folder.path) / f"files/poisons/0001_target_{published[2]['target index']}")
    assert exported.base_split == "train" and exported.bases == tuple(published[2]["base indices"])
    bases = export.to_8_bits(asked.data.load("train").images(torch.tensor(exported.bases)))
    assert 0 < int((exported.images.int() - bases.int()).abs().max()) <= 9
    absent = params(**{**BENCHMARK, "setups": {"file": "/nowhere", "size": 200}})
    assert estimate(absent).details == {
        "crafts": "unknown: setups.file: '/nowhere' cannot be read: No such file or directory"
    }
    told = estimate(asked).details
    assert told["crafts, at most"] == 2 * 4 and told["retrainings, at most"] == 2 * 2 * 3


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"file": "/nowhere"}, "setups.file: '/nowhere' cannot be read: No such file"),
        ({"first": 2}, "setups.first must be below 2, the setups of the file; it is 2"),
        ({"count": 3}, "setups.count must be at most 2, the setups after the first 0; it is 3"),
        ({"size": None, "track": "cifar10_transfer"}, "cifar10_transfer has 25 poisons, these have 4"),
        ({"size": 30}, "setups.size must be at least 40"),
        ({"size": 4000}, "must be at most .*, the images of class 0 that are no bases; it is 400"),
    ],
)
def test_setups_that_cannot_be_run(make_run, tmp_path, changes, sentence):
    file = tmp_path / "setups.pickle"
    file.write_bytes(pickle.dumps(setups_of_digits(2, 4)))
    network = {**TRAINED, "training": {**TRAINED["training"], "epochs": 1}}
    with pytest.raises(InputError, match=sentence):
        run(
            params(**{**BENCHMARK, "network": network, "setups": {"file": str(file), "size": 100, **changes}}),
            make_run(),
        )


def test_a_stored_network_is_attacked_in_what_its_head_is_not(make_run, tmp_path):
    store = open_store(str(tmp_path / "store"))
    arguments = {"classes": 7, "channels": 1, "side": 8, "size": 128}  # classes of something else
    card = draft("jobs.common.models.classifiers:digits_16_net", arguments)
    torch.manual_seed(0)
    models.publish(store, "net", classifier("digits_16_net", **arguments).state_dict(), card)
    handle = make_run()
    loose = {"head": {"kind": "head", "l2": 1e-8}}  # the features of an untrained network are small
    any_two = {"count": 2, "only_correct": False}
    run(params(network={"kind": "model", "name": "net"}, targets=any_two, victims=loose), handle)
    assert handle.metrics["flipped"] == 1
    with pytest.raises(InputError, match=r"logits of shape \(1, 10\); they are \(1, 7\)"):
        run(params(network={"kind": "model", "name": "net"}, victims={"tuned": TUNED}), make_run("b"))


def test_a_stored_network_of_other_classes(make_run, tmp_path):
    store = open_store(str(tmp_path / "store"))
    arguments = {"classes": 10, "channels": 1, "side": 8, "size": 128}
    card = draft("jobs.common.models.classifiers:digits_16_net", arguments, settings={"classes": list("abcdefghij")})
    models.publish(store, "net", classifier("digits_16_net", **arguments).state_dict(), card)
    with pytest.raises(InputError, match="classes of model 'net/1' must be those of digits, 0, .*; they are a, b, c"):
        run(params(network={"kind": "model", "name": "net"}, victims={"tuned": TUNED}), make_run())


class VictimsFail(Run):
    """Loses all cells of one victim, or of all of them."""

    victims: tuple[str, ...] = ("weak",)

    def map(self, fn: Any, cells: Any, shared: Any = None, name: str | None = None) -> list[Any]:
        results = super().map(fn, cells, shared, name)
        if name != "victims":
            return results
        lost = [cell["victim"] in self.victims for cell in cells]
        return [None if gone else result for gone, result in zip(lost, results, strict=True)]


class AllFail(VictimsFail):
    victims = ("head", "weak")


@pytest.mark.parametrize(("kind", "success"), [(VictimsFail, {"success", "success_head"}), (AllFail, set())])
def test_victims_that_failed_leave_what_the_others_told(make_run, kind, success):
    handle = make_run(kind=kind)
    asked = params(victims={"head": {"kind": "head"}, "weak": {"kind": "head", "l2": 1.0}}, targets={"count": 1})
    run(asked, handle)
    assert {name for name in handle.metrics if "success" in name} == success
    assert handle.folder.exists("tables/targets.parquet") and handle.folder.exists("figures/success.png") == bool(
        success
    )
    told: dict[str, Any] = {"label": "a", "variant": None, "seed": 0, "overrides": {}, "best": False}
    trials = [Trial(handle.folder, id=name, params=asked, status="partial", metrics={}, **told) for name in "ab"]
    trials[1].label = "b"
    summarize(trials, make_run("whole"))


def test_trials_are_shown_side_by_side(make_run):
    trials = []
    for name, iterations in (("short", 2), ("long", 40)):
        handle, asked = (
            make_run(name),
            params(attack={**COLLISION, "iterations": iterations}, targets={"count": 2}),
        )
        run(asked, handle)
        told: dict[str, Any] = {"id": name, "label": name, "variant": name, "seed": 0, "overrides": {}, "best": False}
        trials.append(Trial(handle.folder, params=asked, status="finished", metrics=handle.metrics, **told))
    whole: Run = make_run("whole")
    summarize(trials, whole)
    assert {row["trial"] for row in table(whole.folder, "success")} == {"short", "long"}
    assert whole.folder.exists("figures/success.png")


def test_what_it_costs_is_known_before(monkeypatch):
    told = estimate(params(poisons=[1, 4], repeats=2)).details
    assert told["crafts, at most"] == 10 * 4
    assert told["retrainings, at most"] == 2 * (1 + 10 * 3)
    # 32 channels of 3x3 on 8x8, 64 of 32x3x3 on 4x4, 256 x 128, 128 x 10
    macs = 64 * 32 * 9 + 16 * 64 * 32 * 9 + 256 * 128 + 1280
    assert told["multiply-adds of crafting, at most"] == 2 * macs * 60 * 40
    together = estimate(params(attack={"kind": "polytope", "steps": 10}, poisons=[2, 3])).details
    assert together["crafts, at most"] == 10 * 5
    of_three = estimate(params(attack={"kind": "polytope", "steps": 10}, poisons=[2, 3], surrogates=3, grey_box=True))
    costs = [each["multiply-adds of crafting, at most"] for each in (of_three.details, together)]
    assert costs[0] == 3 * float(costs[1])
    assert estimate(params(targets={"indices": [0, 1, 2]})).details["crafts, at most"] == 2 * 3
    absent = params(data={"name": "image_folder", "root": "/nowhere", "train_limit": 9, "test_limit": 9}, targets={})
    assert "unknown" in estimate(absent).details["crafts"]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"pairs": [{"target": "3", "base": "3"}]},
            "pairs.0.base must be another class than that of the targets; it is '3'",
        ),
        ({"pairs": [{"target": "3", "base": "4"}]}, "pairs.0 must be of the task's classes, 3, 8"),
        ({"pairs": [{"target": "3", "base": "8"}] * 2}, "pairs.1 must name each pair once"),
        ({"pairs": []}, "name either pairs of classes or the setups of a benchmark"),
        ({"setups": {"file": "x", "size": 9}}, "name either pairs of classes or the setups of a benchmark"),
        ({**BENCHMARK, "setups": {"file": "x"}}, "name either a track or a size"),
        ({**BENCHMARK, "setups": {"file": "x", "track": "cifar10"}}, "setups.track must be one of .*; it is 'cifar10'"),
        ({**BENCHMARK, "poisons": [2]}, "poisons must be left out, as the setups of a benchmark say"),
        ({**BENCHMARK, "retry": {"above": 1.0}}, "retry must be left out, as the setups of a benchmark say"),
        ({**BENCHMARK, "attack": COLLISION}, "attack.epsilon must be at most 0.03529, .*; it is empty"),
        ({**BENCHMARK, "attack": {"kind": "polytope"}}, "attack.epsilon must be at most .*; it is 0.1"),
        ({**BENCHMARK, "attack": {**END_TO_END, "epsilon": 0.03}}, "poisons of setups have 256 shades"),
        (
            {**BENCHMARK, "attack": {**COLLISION, "quantise": "truncate", "epsilon": 9 / 255}},
            r"attack.epsilon must be at most 0.03137, which is \(setups.levels - 1\) / 255",
        ),
        ({"targets": {"indices": [1], "count": 1}}, "targets.count must be left out where targets.indices names"),
        (
            {"targets": {"indices": [1]}, "pairs": [{"target": "3", "base": "8", "targets": 2}]},
            "pairs.0.targets must be left out where targets.indices names the images; it is 2",
        ),
        (
            {"victims": {"a": {**TUNED, "hidden_l2": 0.1, "optimizer": {"kind": "lbfgs", "weight_decay": 0.0}}}},
            "hidden_l2 must be 0 for lbfgs",
        ),
        ({"task": ["3"]}, "must be of the task's classes, 3; it is"),
        ({"task": ["3", "8", "3"]}, "task must name each once"),
        ({"poisons": [0, 5]}, "poisons must be at least 1 each"),
        ({"poisons": [5, 5]}, "poisons must name each once"),
        ({"targets": {"indices": [0, 0]}}, "targets.indices must name each once"),
        ({"attack": {"kind": "feature_collision", "profile": "paper", "step": 0.0}}, "params.attack.*step"),
        ({"attack": {"kind": "feature_collision", "profile": "paper", "beta": -1.0}}, "params.attack.*beta"),
        (
            {"attack": {**COLLISION, "stop_ratio": 1.5}},
            "no nearer than training images are",
        ),
        ({"attack": {"kind": "collision"}}, "params.attack"),
        ({"victims": {}}, "params.victims"),
        ({"victims": {"a": {"kind": "head", "start": "warm"}}}, "L-BFGS converges to the same head from anywhere"),
        ({"layers": ["2"]}, "learns from what is before the last linear layer"),
        ({"layers": [""], "victims": {"a": TUNED}}, "layers must be names of layers"),
        ({"retry": {"above": 1.0}, "bases": {"rule": "single"}}, "with a single base there is no other to try"),
        ({"retry": {"above": 1.0}, "attack": {"kind": "polytope"}}, "made together have no next base"),
        ({"surrogates": 1}, "feature_collision crafts against one network"),
        ({"grey_box": True}, "there are no surrogates"),
        ({"export": True, "attack": END_TO_END}, "attack.quantise must be round or truncate for export"),
        ({"network": {"kind": "model", "name": "x"}, "victims": {"a": {"kind": "scratch"}}}, "victims.a.classifier"),
        ({"network": {**TRAINED, "classifier": {"name": "resnet21"}}}, "unknown classifier 'resnet21'"),
    ],
    ids=lambda value: json.dumps(value)[:50] if isinstance(value, dict) else "",
)
def test_parameters_that_cannot_work_are_refused_in_a_sentence(changes, sentence):
    with pytest.raises(SpecError, match=sentence):
        params(**changes)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"task": [], "pairs": [{"target": "3", "base": "eight"}]}, "unknown class 'eight'"),
        ({"targets": {"count": 100}}, "targets.count must be 1 to .*; it is 100"),
        ({"poisons": [100]}, "poisons must be at most .*, the test images of '8' that .*; it is 100"),
        ({"targets": {"indices": [500]}}, "targets.indices must be 0 to 149, .*; it is 500"),
        ({"layers": ["no.layer"], "victims": {"a": TUNED}}, "layers: the network has no 'no.layer'"),
        (
            {
                "victims": {
                    "fresh": {"kind": "scratch", "classifier": {"name": "digits_net", "options": {"classes": 3}}}
                }
            },
            r"network 'digits_net' must answer .* logits of shape \(1, 10\)",
        ),
        (
            {"defences": {"knn": {"kind": "deep_knn", "k": 5000}}},
            "defences.knn.k must be 1 to .*, the number of other points; it is 5000",
        ),
        (
            {"defences": {"none": {"kind": "spectral", "poisons": 90}}},
            "defences.none.factor \\* poisons must be below .*, the number of points of class",
        ),
        ({"network": {**TRAINED, "classifier": {"name": "fast_mnist"}}}, "network 'fast_mnist' does not fit digits"),
        (
            {"victims": {"tuned": {**TUNED, "engine": {"precision": "bfloat16"}}}},
            "victims.tuned.engine.precision must be float32 where training has no GPU",
        ),
    ],
    ids=["class", "count", "poisons", "indices", "layer", "victim", "neighbours", "dropped", "network", "precision"],
)
def test_what_can_be_refused_is_refused_before_training(make_run, monkeypatch, changes, sentence):
    monkeypatch.setattr("jobs.poison_frogs.networks.train", lambda *given: pytest.fail("a network was trained"))
    with pytest.raises(InputError, match=sentence):
        run(params(**changes), make_run())


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"size": 5000}, "images of a class in setups.size must be at most .*; it is 500"),
        ({"size": 50}, "defences.knn.k must be 1 to 49, the number of other points; it is 60"),
    ],
)
def test_training_sets_of_setups_are_looked_at_before_training(make_run, monkeypatch, tmp_path, changes, sentence):
    monkeypatch.setattr("jobs.poison_frogs.networks.train", lambda *given: pytest.fail("a network was trained"))
    labels = params().data.load("test").labels, params().data.load("train").labels
    setup = {"target_class": 3, "base_class": 8}
    setup["target_index"] = int((labels[0] == 3).nonzero()[0])
    setups = [setup | {"base_indices": (labels[1] == 8).nonzero().flatten()[:2].tolist()}]
    (tmp_path / "setups.json").write_text(json.dumps(setups))
    asked = {**BENCHMARK, "setups": {"file": str(tmp_path / "setups.json"), **changes}}
    with pytest.raises(InputError, match=sentence):
        run(params(**asked, defences={"knn": {"kind": "deep_knn", "k": 60}}), make_run())


def test_a_network_that_is_none_is_refused(make_run):
    network = {"kind": "model", "name": "tests.jobs.robustness_evaluation.subjects:not_a_module"}
    with pytest.raises(InputError, match="torch module"):
        run(params(network=network), make_run())
