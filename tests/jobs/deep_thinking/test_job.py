"""The whole study on a tiny scale, and parameters that cannot work."""

import json
from typing import Any

import pytest
import safetensors.torch
import torch

from jobs.deep_thinking.job import run
from jobs.deep_thinking.networks import network
from jobs.deep_thinking.params import Params
from service import models
from service.errors import SpecError
from service.execution.checkpoints import decode
from service.spec import validate
from service.store import open_store
from tests.jobs.shared import changed

OWN = """
import torch
from jobs.deep_thinking.networks import DeepThinkingNet
from jobs.deep_thinking.problems.prefix_sums import PrefixSums

def build(channels, hidden):
    return DeepThinkingNet(1, channels, hidden, recall=True, group_norm=False)

class ones(PrefixSums):
    name = "ones"

class unverified:
    name, channels, dimensions, sizes = "unverified", 1, 1, "bits"
    check_size = sample = counted = check_inputs = warnings = picture = lambda *given: None

def lazy(channels):
    return torch.nn.Identity()
"""


def params(**changes: Any) -> Params:
    tree = {
        "training": {"size": 6, "iterations": 3, "batch": 8, "data": {"kind": "fresh", "updates": 6, "validation": 10}},
        "network": {"width": 8},
        "evaluation": {"sizes": [{"size": 6, "iterations": 5, "instances": 10}, {"size": 9, "iterations": 8}]},
    }
    return validate(Params, changed(tree, changes), "params")


def test_a_trial_leaves_curves_a_summary_and_a_model_that_answers_alike(make_run, tmp_path):
    handle = make_run()
    run(params(evaluation__show={"size": 9, "iterations": 8}), handle)
    assert handle.metrics.keys() >= {"val_accuracy", "val_stability", "at_trained_6", "peak_9", "last_9"}
    folder = handle.folder
    results = folder.read_table("tables/results.parquet").to_pylist()
    assert [(row["size"], row["iterations"]) for row in results] == [(6, 5), (9, 8)]
    curves = folder.read_table("tables/accuracy.parquet").to_pylist()
    assert [(row["size"], row["iteration"]) for row in curves] == [(6, t) for t in range(1, 6)] + [
        (9, t) for t in range(1, 9)
    ]
    assert folder.exists("samples/solving.gif") and folder.exists("figures/solving.png")

    staged = decode(folder.read("models/prefix-sums-recall-progressive.safetensors"))
    store = open_store(str(tmp_path / "store"))
    card = models.publish(store, "net", staged["weights"], models.CardDraft(**staged["draft"]))
    assert card.settings["trained_iterations"] == 3
    assert card.settings["problem"] == {"name": "prefix_sums", "options": {}}
    loaded = models.load(store, card)
    inputs = torch.full((2, 1, 6), 0.5)
    logits, _ = loaded(inputs, 4)
    assert logits.shape == (2, 2, 6) and torch.isfinite(logits).all()


def test_the_same_seed_gives_the_same_numbers(make_run):
    first, second, other = make_run("first"), make_run("second"), make_run("other", seed=1)
    for handle in (first, second, other):
        run(params(), handle)
    assert first.rows == second.rows != other.rows


def test_a_problem_and_a_network_of_ones_own(make_run, own_package):
    handle = make_run()
    own = params(
        problem__name="mypackage.module:ones", network={"name": "mypackage.module:build", "options": {"hidden": 6}}
    )
    run(own, handle)
    draft = decode(handle.folder.read("models/ones-build-progressive.safetensors"))["draft"]
    assert draft["architecture"] == "mypackage.module:build"
    assert draft["arguments"] == {"channels": 1, "hidden": 6}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"network__name": "dt_net_2d"}, "'dt_net_2d' does not fit prefix_sums"),
        ({"network__name": "dt_net"}, "unknown network 'dt_net'.*did you mean 'dt_net_.d'"),
        ({"problem__name": "prefix_sum"}, "unknown problem 'prefix_sum'.*did you mean 'prefix_sums'"),
        ({"problem__name": "mazes"}, "training.size must be odd, from 3 to"),
        ({"problem__options": {"scale": 1}}, "'prefix_sums' refuses its options"),
        (
            {"problem": {"name": "mazes", "options": {"scale": 3}}},
            "params.problem.options.scale must be 1 or 2; it is 3",
        ),
        ({"problem__name": "nowhere.at:all"}, "cannot import 'nowhere.at'"),
        ({"problem__name": "mypackage.module:unverified"}, "problem 'mypackage.module:unverified' lacks verify"),
        ({"network": {"width": 6, "group_norm": True}}, "width must be at least 2"),
        ({"network": {"options": {"width": 64}}}, "network.options must be empty for dt_net_1d, whose width, recall"),
        ({"training__alpha": 1.5}, "params.training.alpha"),
        ({"training__data": {"kind": "fresh", "epochs": 3}}, "epochs: unknown field"),
        ({"training__optimizer": {"learnin_rate": 0.1}}, "learnin_rate: unknown field.*did you mean 'learning_rate'"),
        ({"evaluation__sizes": []}, "params.evaluation.sizes"),
        (
            {"evaluation__sizes": [{"size": 6}, {"size": 6, "iterations": 9}]},
            "evaluation.sizes must name each size once",
        ),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
def test_parameters_that_cannot_work_are_refused_in_a_sentence(own_package, changes, sentence):
    with pytest.raises(SpecError, match=sentence) as refused:
        params(**changes)
    assert "\n" not in str(refused.value)


def test_a_network_without_the_interface_is_refused(make_run, own_package):
    with pytest.raises(SpecError, match="'mypackage.module:lazy' lacks start, step, answer"):
        params(network={"name": "mypackage.module:lazy"})


def test_a_network_with_weights_of_a_file_is_tested_without_training(make_run, tmp_path):
    torch.manual_seed(0)
    weights = network("dt_net_1d", channels=1, width=8).state_dict()
    saved = {f"module.{name}": each.contiguous() for name, each in weights.items()}
    safetensors.torch.save_file(saved, tmp_path / "w.safetensors")
    handle = make_run()
    tested = {"network__weights": str(tmp_path / "w.safetensors"), "training__data__updates": 0}
    run(params(**tested, training__keep="best"), handle)
    assert handle.metrics.keys() >= {"val_stability", "peak_9", "last_9"} and "train_loss" not in handle.metrics
    staged = decode(handle.folder.read("models/prefix-sums-recall-progressive.safetensors"))
    assert all(torch.equal(each, weights[name]) for name, each in staged["weights"].items())
