"""The whole study on a tiny scale, and parameters that cannot work."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from jobs.common.attacks import PGD, Ball
from jobs.free_training.job import _labels, run, summarize
from jobs.free_training.params import Params
from service import models
from service.errors import InputError, SpecError
from service.execution.checkpoints import decode
from service.run import Trial
from service.spec import validate
from service.store import open_store
from tests.jobs.shared import changed

OWN = """
import torch
from torch import nn
from jobs.common.data.images.base import Pixels

from jobs.common.data.images.base import Pixels

def build(classes, channels, hidden):
    return nn.Sequential(nn.Flatten(), nn.Linear(64 * channels, hidden), nn.ReLU(), nn.Linear(hidden, classes))

def fruit(split, source):
    names = ("apple", "banana", "cherry") if split == "train" else ("cherry", "apple")
    labels = torch.arange(48) % len(names)
    shades = torch.tensor([100 * "abc".index(name[0]) for name in names], dtype=torch.uint8)[labels]
    return Pixels("fruit", names, shades.view(-1, 1, 1, 1).expand(-1, 1, 8, 8), labels)

def wrong(classes, channels):
    return nn.Sequential(nn.Flatten(), nn.Linear(64 * channels, 3))

def two_classes(split, source):
    return Pixels("two", ["a", "b"], torch.zeros(100, 1, 8, 8, dtype=torch.uint8), torch.arange(100) % 2)
"""


def params(**changes: Any) -> Params:
    tree: Any = {
        "data": {"train_limit": 100, "test_limit": 24},
        "threat": {"epsilon": 0.1},
        "method": {"kind": "free", "replay": 2},
        "training": {"updates": 6, "batch": 16, "report_every": 3, "held_out": 20},
        "evaluation": {"batch": 10},
    }
    return validate(Params, changed(tree, changes), "params")


@pytest.mark.usefixtures("own_package")
def test_splits_that_number_their_classes_each_by_itself(make_run: Any) -> None:
    """What was learnt is right of all images to test, and the card names the classes that it was learnt by."""
    handle = make_run()
    optimizer = {"kind": "adam", "learning_rate": 0.01}
    training = {"training__optimizer": optimizer, "training__updates": 60, "training__report_every": 60}
    own = {"data": {"name": "mypackage.module:fruit"}, "method": {"kind": "natural"}, "threat__epsilon": 0.01}
    network = {"name": "mypackage.module:build", "options": {"hidden": 16}}
    run(params(**own, **training, network=network, publish_as="fruit"), handle)
    assert handle.metrics["clean"] == 1
    (model,) = Path(handle.folder.path).glob("models/*.safetensors")
    assert decode(model.read_bytes())["draft"]["settings"]["classes"] == ["apple", "banana", "cherry"]
    rows = handle.folder.read_table("tables/classes.parquet").to_pylist()
    assert [(row["class"], row["images"]) for row in rows] == [("apple", 24), ("banana", 0), ("cherry", 24)]


def test_a_trial_leaves_a_table_and_a_model_that_answers_alike(make_run: Any, tmp_path: Path) -> None:
    attacks = {"fgsm": {"kind": "fgsm"}, "pgd": {"kind": "pgd", "steps": 5}}
    asked = params(evaluation__attacks=attacks, evaluation__epsilons=[0.02])
    handle = make_run()
    run(asked, handle)
    rows = handle.folder.read_table("tables/attacks.parquet").to_pylist()
    assert [(row["attack"], row["epsilon"]) for row in rows] == [
        ("fgsm", 0.02),
        ("fgsm", 0.1),
        ("pgd", 0.02),
        ("pgd", 0.1),
    ]
    assert all(row["images"] == 24 and row["robust"] <= row["clean"] == handle.metrics["clean"] for row in rows)
    at_training = {row["attack"]: row["robust"] for row in rows if row["epsilon"] == 0.1}
    assert {name: handle.metrics[f"robust_{name}"] for name in attacks} == at_training
    assert handle.metrics["robust"] <= min(at_training.values())

    staged = decode(handle.folder.read("models/digits-digits-net-free-2.safetensors"))
    store = open_store(str(tmp_path / "store"))
    card = models.publish(store, "net", staged["weights"], models.CardDraft(**staged["draft"]))
    assert card.task == "classification" and card.settings["classes"] == list("0123456789")
    assert (card.settings["norm"], card.settings["epsilon"]) == ("Linf", 0.1)
    assert card.inputs[0].shape == (-1, 1, 8, 8)
    net, test = models.load(store, card), asked.data.load("test")
    images = test.images(torch.arange(24))
    assert net(images).shape == (24, 10)
    assert float((net(images).argmax(1) == test.labels).double().mean()) == handle.metrics["clean"]
    seeds = [handle.seed_for("attack", "pgd", index) for index in range(3)]
    robust = [
        ~PGD(steps=5).run(net, images[rows], test.labels[rows], Ball("Linf", 0.1), seeds[index]).successful
        for index, rows in enumerate(torch.arange(24).split(10))
    ]
    assert float(torch.cat(robust).double().mean()) == pytest.approx(at_training["pgd"])


def test_the_same_seed_gives_the_same_numbers(make_run: Any) -> None:
    handles = [make_run("first"), make_run("second"), make_run("other", seed=1)]
    for handle in handles:
        run(params(), handle)
    first, second, other = (
        [{name: value for name, value in row.items() if name != "train_seconds"} for row in handle.rows]
        for handle in handles
    )
    assert first == second != other


def test_natural_training_is_published_as_trained_for_nothing(make_run: Any) -> None:
    handle = make_run()
    run(params(method={"kind": "natural"}), handle)
    draft = decode(handle.folder.read("models/digits-digits-net-natural.safetensors"))["draft"]
    assert draft["settings"]["epsilon"] == 0.0 and "no perturbation" in draft["description"]


def test_a_network_of_ones_own_in_l2(make_run: Any, own_package: None) -> None:
    handle = make_run()
    own = {"name": "mypackage.module:build", "options": {"hidden": 12}}
    run(params(network=own, threat={"norm": "L2", "epsilon": 0.5}), handle)
    draft = decode(handle.folder.read("models/digits-build-free-2.safetensors"))["draft"]
    assert draft["architecture"] == "mypackage.module:build"
    assert draft["arguments"] == {"classes": 10, "channels": 1, "hidden": 12}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"threat__epsilon": 8},
            "params.threat.epsilon must be at most 1, since .*; it is 8 .*8 of 255 is 0.0314",
        ),
        ({"threat__epsilon": 0}, "params.threat.epsilon must be above 0; it is 0"),
        ({"threat": {"norm": "L1", "epsilon": 1}}, "params.threat.norm must be 'Linf' or 'L2'; it is 'L1'"),
        ({"method__replay": 0}, "params.method.replay must be at least 1; it is 0"),
        ({"method__replay": 7}, "params.method.replay must be at most 6, the number of updates; it is 7"),
        ({"method__step": 2.5}, "params.method.step must be at most 2; it is 2.5"),
        ({"method": {"kind": "pgd", "step": 3}}, "params.method.step must be at most 2; it is 3"),
        ({"method": {"kind": "fre"}}, "fre"),
        ({"method__replays": 4}, "replays: unknown field.*did you mean 'replay'"),
        ({"method__delta": "keep"}, "params.method.delta must be 'carry', 'zero' or 'random'; it is 'keep'"),
        ({"data__name": "digit"}, "unknown data set 'digit'.*did you mean 'digits'"),
        ({"network__name": "digit_net"}, "unknown classifier 'digit_net'.*did you mean 'digits_net'"),
        ({"evaluation__epsilons": [16]}, "params.evaluation.epsilons must be at most 1, .*; it is 16"),
        (
            {"evaluation__attacks": {"cw": {"kind": "carlini_wagner"}}},
            "cw.kind must be an attack that knows Linf",
        ),
        ({"evaluation__attacks": {"PGD 20": {"kind": "pgd"}}}, "evaluation.attacks.PGD 20"),
        ({"evaluation__attacks": {}}, "params.evaluation.attacks"),
        ({"training__keep": "worst"}, "params.training.keep"),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
def test_parameters_that_cannot_work_are_refused_in_a_sentence(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SpecError, match=sentence) as refused:
        params(**changes)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"training__batch": 81}, "a training set of 80 instances does not fill one batch of 81"),
        ({"training__held_out": 100}, "training.held_out must be below 100, the number of training images; it is 100"),
        (
            {"threat": {"norm": "L2", "epsilon": 9}},
            "epsilon must be at most 8, the largest distance of two images of 64 pixels",
        ),
        (
            {"threat": {"norm": "L2", "epsilon": 1}, "evaluation__epsilons": [9]},
            "epsilon must be at most 8, the largest distance of two images of 64 pixels",
        ),
        (
            {
                "evaluation__attacks": {"dlr": {"kind": "apgd", "loss": "dlr"}},
                "data__name": "mypackage.module:two_classes",
            },
            "the model must have at least 3 classes for apgd with these options; it has 2",
        ),
        ({"network": {"name": "resnet18"}}, "mean and std: 3 and 3 values for 1 channels"),
        ({"network": {"name": "fast_mnist"}}, r"'fast_mnist' does not fit digits \(1 channel of 8x8\): "),
        ({"network": {"name": "digits_net", "options": {"depth": 3}}}, "refuses its arguments"),
        ({"network": {"name": "mypackage.module:wrong"}}, r"with logits of shape \(1, 10\); they are \(1, 3\)"),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
def test_what_only_the_data_tell_is_refused_at_the_start(
    make_run: Any, own_package: None, changes: dict[str, Any], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.common.training.loop.train", lambda *given: pytest.fail("it has been trained"))
    with pytest.raises(InputError, match=sentence) as refused:
        run(params(**changes), make_run())
    assert "\n" not in str(refused.value)


def ended(make_run: Any, label: str, seed: int = 0, **changes: Any) -> Trial:
    """A trial as the summary sees it, without training."""
    metrics = {"clean": 0.9, "robust": 0.5, "gradient_evaluations": 6.0, "train_seconds": 1.0}
    asked = params(**changes)
    handle = make_run(f"{label}-{seed}")
    robust = {f"robust_{name}": 0.5 for name in asked.evaluation.attacks}
    handle.log(step=6, val_clean=0.9, val_robust=0.5, **metrics, **robust)
    handle.flush()
    told: Any = {"id": f"{label}-{seed}", "label": label, "variant": None, "overrides": {}, "best": False}
    return Trial(handle.folder, **told, seed=seed, params=asked, status="finished", metrics=handle.metrics)


def test_figures_name_what_sets_trials_apart_and_the_table_has_the_attacks_of_all(make_run: Any) -> None:
    trials = [
        ended(make_run, "delta=carry seed=0"),
        ended(make_run, "delta=carry seed=1", seed=1),
        ended(make_run, "delta=zero", method__delta="zero", evaluation__attacks={"fgsm": {"kind": "fgsm"}}),
        ended(make_run, "norm=L2", threat={"norm": "L2", "epsilon": 0.1}),
    ]
    carried, zero = "Free-2 at Linf, delta=carry", "Free-2 at Linf, delta=zero"
    assert list(_labels(trials).values()) == [carried, carried, zero, "Free-2 at L2"]
    assert list(_labels(trials[:2]).values()) == ["Free-2", "Free-2"]
    summary = make_run("summary")
    summarize(trials, summary)
    rows = summary.folder.read_table("tables/results.parquet").to_pylist()
    assert [(row["robust_pgd_20"], row["robust_fgsm"]) for row in rows] == [(0.5, None)] * 2 + [
        (None, 0.5),
        (0.5, None),
    ]
