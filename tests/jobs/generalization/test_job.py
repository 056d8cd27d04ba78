"""The whole study on a tiny scale: what a run says of its network, and what cannot be asked of it."""

import json
import math
from typing import Any

import numpy as np
import pytest
import torch

from jobs.common.models.classifiers import classifier
from jobs.generalization.job import estimate, run, summarize
from jobs.generalization.params import Params
from service import models
from service.errors import InputError, RunFailedError, SpecError
from service.execution.checkpoints import decode
from service.planning.validation import validate
from service.run import Run, Trial
from service.store import Folder, open_store
from tests.jobs.shared import changed, draft

OPTIONS: dict[str, Any] = {"hidden": [16, 16], "single": True, "mean": [0.5, 0.5], "std": [0.028, 0.028]}
SMALL = {"name": "fully_connected", "options": OPTIONS}
TREE: dict[str, Any] = {
    "data": {"name": "swiss_roll", "train_limit": 260, "test_limit": 60},
    "poison": {"share": 0.0, "images": 200},
    "network": {
        "kind": "train",
        "classifier": SMALL,
        "training": {
            "epochs": 6,
            "batch": 30,
            "augmentation": {"padding": 0, "flip": False},
            "report_every": 3,
            "optimizer": {"kind": "adam", "learning_rate": 0.01, "weight_decay": 0.0},
        },
    },
}
MINEFIELD = {"updates": 4, "perplexity": 2, "components": 4, "together": 3}


def params(**changes: Any) -> Params:
    return validate(Params, changed(json.loads(json.dumps(TREE)), changes), "params")


def table(folder: Folder, name: str) -> list[dict[str, Any]]:
    return folder.read_table(f"tables/{name}.parquet").to_pylist()


def trial(handle: Run, asked: Params, label: str) -> Trial:
    facts: dict[str, Any] = {"id": label, "label": label, "variant": label, "seed": 0, "overrides": {}, "best": False}
    return Trial(handle.folder, params=asked, status="finished", metrics=handle.metrics, **facts)


def test_a_network_is_scored_on_sets_that_have_no_image_in_common(make_run: Any) -> None:
    handle, asked = make_run(), params(poison__share=0.3, boundary={"steps": 12}, margin={"angles": 8, "radii": 9})
    run(asked, handle)
    sets = {row["set"]: row for row in table(handle.folder, "sets")}
    assert {name: row["images"] for name, row in sets.items()} == {
        **{"training": 60, "poison": 200},
        **{"test": 30, "untouched": 30},
    }
    assert all(row["low"] <= row["accuracy"] == row["right"] / row["images"] <= row["high"] for row in sets.values())
    metrics = handle.metrics
    assert metrics["gap"] == pytest.approx(metrics["clean_train_accuracy"] - metrics["test_accuracy"])
    assert {"train_poison_accuracy", "untouched_loss", "margin"} <= metrics.keys() and metrics["fitted"] == 0
    points = table(handle.folder, "points")
    wrong = sum(row["label"] != row["predicted"] for row in points if row["set"] == "test")
    assert wrong == 30 - sets["test"]["right"]
    probabilities = trial(handle, asked, "a").array("boundary")
    np.testing.assert_allclose(probabilities.sum(0), np.ones((12, 12)), rtol=1e-5)
    assert handle.folder.exists("figures/boundary.png")
    assert any("called no bad minimum" in sentence for sentence in handle.written.warnings)
    staged = decode(handle.folder.read("models/swiss-roll-fully-connected-poison-0-3.safetensors"))
    assert staged["draft"]["settings"]["poison"] == 0.3


def test_training_goes_on_where_it_was_killed(make_run: Any) -> None:
    """After the checkpoint of epoch 3, in the middle of an epoch of the poison."""

    class Killed(Run):
        def checkpoint(self, state: dict[str, Any], phase: str = "main") -> None:
            super().checkpoint(state, phase)
            if state["progress"]["updates"] < 12:
                raise KeyboardInterrupt

    asked = params(poison__share=0.3)
    straight, cut = make_run("straight"), make_run("cut", kind=Killed)
    run(asked, straight)
    with pytest.raises(KeyboardInterrupt):
        run(asked, cut)
    resumed = make_run("cut")
    run(asked, resumed)
    assert resumed.metrics == straight.metrics
    assert table(resumed.folder, "sets") == table(straight.folder, "sets")


def test_a_minefield_has_a_bad_network_for_each_state(make_run: Any) -> None:
    handle = make_run()
    asked = params(network__training__keep_every=1, minefield=MINEFIELD, poison__images=200)
    run(asked, handle)
    rows = table(handle.folder, "minefield")
    assert [row["epoch"] for row in rows] == [0, 1, 2, 3, 4, 5, 6]
    final = {row["set"]: row["accuracy"] for row in table(handle.folder, "sets")}
    assert all(rows[-1][f"start_{name}"] == pytest.approx(final[name]) for name in ("training", "test", "poison"))
    assert handle.metrics["bad_minima"] + handle.metrics["unfitted"] == 7
    assert all(row["distance"] > 0 for row in rows) and handle.folder.exists("figures/minefield.png")
    again = make_run("again")
    run(asked, again)
    assert table(again.folder, "minefield") == rows, "the map is the same each time"


@pytest.mark.parametrize("method", ["guess_and_check", "pattern_search", "greedy_random"])
def test_a_network_is_found_without_gradients(make_run: Any, method: str) -> None:
    handle = make_run()
    search = {
        **{"kind": "search", "networks": 200, "rounds": 300, "report_every": 5, "method": {"kind": method}},
        "classifier": {"name": "fully_connected", "options": {"side": 8, "hidden": [4]}},
    }
    digits = {"name": "digits", "classes": ["0", "1"], "train_limit": 10}
    run(params(network=search, data=digits, poison={}), handle)
    metrics = handle.metrics
    assert metrics["search_accuracy"] == metrics["clean_train_accuracy"] == metrics["fitted"] == 1
    assert metrics["search_loss"] == pytest.approx(metrics["clean_train_loss"], rel=1e-4)
    assert metrics["networks_tried"] % 200 == 0 and metrics["test_accuracy"] > 0.5
    assert handle.folder.exists(f"models/digits-fully-connected-{method.replace('_', '-')}.safetensors")


def test_a_search_in_which_no_loss_is_finite_ends_in_a_sentence(make_run: Any) -> None:
    deep = {"name": "fully_connected", "options": {"side": 8, "hidden": [4] * 8}}
    search = {"kind": "search", "networks": 3, "rounds": 2, "bound": 1e6, "classifier": deep}
    with pytest.raises(RunFailedError, match="of 6 networks none has a finite loss"):
        run(params(network=search, data={"name": "digits", "train_limit": 10}, poison={}), make_run())


def test_a_set_that_does_not_fit_into_memory_is_refused_before_training(
    make_run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.common.mean_loss.samples.MOST_BYTES", 100)
    monkeypatch.setattr("jobs.generalization.networks.train", lambda *given: pytest.fail("a network was trained"))
    with pytest.raises(InputError, match="60 images of swiss_roll must take at most 0 GB"):
        run(params(basins={"rays": 2}), make_run())


def test_a_network_of_the_store_is_measured_and_not_trained(make_run: Any, tmp_path: Any) -> None:
    arguments = {"classes": 2, "channels": 2, **OPTIONS}
    card = draft("jobs.common.models.classifiers:fully_connected", arguments)
    torch.manual_seed(0)
    models.publish(
        open_store(str(tmp_path / "store")), "net", classifier(SMALL["name"], **arguments).state_dict(), card
    )
    handle = make_run()
    run(params(network={"kind": "model", "name": "net"}, poison={}, boundary={"steps": 5}), handle)
    assert {row["set"] for row in table(handle.folder, "sets")} == {"training", "test", "untouched"}
    assert "train_loss" not in handle.metrics and handle.metrics["clean_train_loss"] > 0
    with pytest.raises(InputError, match="network 'net/1' does not fit digits"):
        run(params(network={"kind": "model", "name": "net"}, poison={}, data={"name": "digits"}), make_run("other"))


def test_trials_are_shown_side_by_side(make_run: Any) -> None:
    trials = []
    for label, share in (("clean", 0.0), ("poisoned", 0.4)):
        handle, asked = make_run(label), params(poison__share=share, boundary={"steps": 5}, margin={"angles": 4})
        run(asked, handle)
        trials.append(trial(handle, asked, label))
    whole: Run = make_run("whole")
    summarize(trials, whole)
    rows = {row["trial"]: row for row in table(whole.folder, "results")}
    assert rows["poisoned"]["poison"] == 0.4 and math.isnan(rows["clean"]["train_poison_accuracy"] or math.nan)
    for name in ("shares", "boundaries", "margins"):
        assert whole.folder.exists(f"figures/{name}.png")


def test_what_it_costs_is_known_before() -> None:
    costs = estimate(params(poison__share=0.5))
    macs = 2 * 16 + 16 * 16 + 16
    # 6 epochs of 60 images, as much poison again, and one forward pass over all sets
    assert costs.multiply_adds == pytest.approx(3 * macs * (6 * (60 + 60) + (60 + 200 + 60) / 3))
    assert costs.details == {"images trained on": 6 * (60 + 60), "images shown besides": 60 + 200 + 60}
    field = estimate(params(network__training__keep_every=2, minefield=MINEFIELD))  # 4 states, 4 updates each
    assert field.details["images trained on"] == 6 * 60 + 4 * 4 * (60 + 200) and field.pieces == 2
    assert field.details["images shown besides"] == 320 * (1 + 2 * 4), "each network is scored on every set"
    search = estimate(params(network={"kind": "search", "classifier": SMALL, "networks": 50, "rounds": 7}))
    assert search.details["images shown besides"] == 320 + 50 * 7 * 60
    absent = estimate(params(data={"name": "image_folder", "root": "/nowhere"}))
    assert "unknown" in str(absent.details["images"])
    assert estimate(params(network={"kind": "model", "name": "net"}, poison={})).core_seconds is None


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"poison__share": 1.0}, "params.poison.share"),
        ({"poison__share": -0.1}, "params.poison.share"),
        ({"poison__share": 0.3, "poison__images": 0}, "poison.images must be at least 1 where poison.share is above 0"),
        (
            {"poison__share": 0.3, "poison__batch": 201},
            "poison.images must be at least 201, the poison images in a minibatch; it is 200",
        ),
        (
            {"poison__share": 0.3, "network": {"kind": "model", "name": "x"}},
            "poison.share must be 0 for a network that",
        ),
        ({"minefield": MINEFIELD}, "network.training.keep_every must be given for a minefield"),
        ({"minefield": {**MINEFIELD, "share": 1.0}}, "params.minefield.share"),
        (
            {"minefield": {**MINEFIELD, "perplexity": 5}, "network__training__keep_every": 1},
            "minefield.perplexity must be below 4.667, a third of the 14 networks on the map; it is 5",
        ),
        (
            {"minefield": {**MINEFIELD, "optimizer": {"clip": 1.0}}, "network__training__keep_every": 1},
            "optimizer.clip must be left out, as networks are trained together; it is 1",
        ),
        (
            {
                "minefield": {**MINEFIELD, "optimizer": {"kind": "lbfgs", "weight_decay": 0.0}},
                "network__training__keep_every": 1,
            },
            "optimizer.kind must be another one, as networks are trained together; it is 'lbfgs'",
        ),
        (
            {"minefield": MINEFIELD, "network__training__keep_every": 1, "poison__share": 0.1},
            "poison must have a share of 0 and images for a minefield",
        ),
        ({"minefield": MINEFIELD, "network": {"kind": "model", "name": "x"}}, "network.kind must be train"),
        ({"network": {"kind": "search", "networks": 0}}, "params.network.*networks"),
        ({"publish_as": "x", "network": {"kind": "model", "name": "x"}}, "publish_as must be left out"),
    ],
    ids=lambda value: json.dumps(value)[:50] if isinstance(value, dict) else "",
)
def test_parameters_that_cannot_work_are_refused_in_a_sentence(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SpecError, match=sentence):
        params(**changes)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"poison__images": 260}, "poison.images must be below 260, the number of images to train with"),
        ({"untouched": 60}, "untouched must be from 1 to 59, one below the number of test images; it is 60"),
        ({"poison__data": {"name": "digits"}}, "images of poison.data must be \\(2, 1, 1\\), as those of data"),
        (
            {"poison__data": {"name": "swiss_roll"}, "poison__images": 4000},
            "poison.images must be at most 3940, the images of swiss_roll that are in no other set; it is 4000",
        ),
        ({"data": {"name": "digits"}, "boundary": {}}, "boundary must be left out where images are no points"),
        ({"data": {"name": "digits"}, "margin": {}}, "margin must be left out where images are no points"),
        ({"data": {"name": "digits"}}, "mean and std: 2 and 2 values for 1 channels"),
        (
            {"data": {"name": "digits"}, "network__classifier": {"name": "fully_connected"}},
            "network 'fully_connected' does not fit digits",
        ),
        (
            {
                "data": {"name": "digits"},
                "network": {"kind": "search", "classifier": {"name": "digits_net"}},
                "poison": {},
            },
            "must be without batch norm; this one has 'network.1'",
        ),
    ],
    ids=lambda value: json.dumps(value)[:50] if isinstance(value, dict) else "",
)
def test_what_does_not_fit_the_images_is_refused_before_anything_is_trained(
    make_run: Any, changes: dict[str, Any], sentence: str
) -> None:
    handle = make_run()
    with pytest.raises(InputError, match=sentence):
        run(params(**changes), handle)
    assert not handle.rows


def test_an_animation_shows_the_plane_while_the_weights_move(make_run: Any) -> None:
    handle = make_run()
    run(params(wiggle={"frames": 3, "steps": 4}), handle)
    rows = table(handle.folder, "wiggle")
    assert [row["places"] for row in rows] == [-0.5, 0, 0.5]
    assert rows[1]["loss"] == pytest.approx(handle.metrics["clean_train_loss"], rel=1e-4)
    assert rows[1]["test_accuracy"] == pytest.approx(handle.metrics["test_accuracy"])
    assert handle.folder.exists("samples/wiggle.gif")
