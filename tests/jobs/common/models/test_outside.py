"""Networks from outside: what is wrapped is unwrapped, what no study can use is one sentence before the work begins."""

from tempfile import gettempdir

import pytest
import torch
from torch import nn

from jobs.common.data.images import DataParams
from jobs.common.models.classifiers import classifier
from jobs.common.models.fit import check_fit, check_sendable
from jobs.common.models.reference import ModelReference
from jobs.common.robustness import slices
from service import models
from service.errors import InputError
from service.run import Run
from service.store import open_store
from tests.jobs.common.models import outside
from tests.jobs.shared import draft

HERE = "tests.jobs.common.models.outside"
DIGITS = DataParams(train_limit=10).load("train")


def build(name: str) -> nn.Module:
    return ModelReference(name=f"{HERE}:{name}").load(Run(open_store(gettempdir()), seed=0)).network


@pytest.mark.parametrize("name", ["plain", "parallel", "compiled_in_place", "within"])
def test_wrappers_are_taken_off(name):
    network = build(name)
    expected = outside.plain()
    part = network[1] if name == "within" else network
    assert type(part) is outside.Plain and part._compiled_call_impl is None
    part.load_state_dict(expected.state_dict())  # by the names that it has without them
    check_fit(network, DIGITS, name)
    check_sendable(network, name)
    assert all(isinstance(each, outside.Plain | nn.Linear | nn.Sequential | nn.Identity) for each in network.modules())


def test_a_classifier_to_train_is_unwrapped_and_is_loaded_again(tmp_path):
    """It is saved by the names that it has without wrappers; a model that was saved with them can be loaded too."""
    network = classifier(f"{HERE}:parallel_classifier", classes=10, channels=1)
    assert not any(name.startswith("module.") for name in network.state_dict())
    store = open_store(str(tmp_path))
    images = torch.rand(2, 1, 8, 8)
    for state in (network.state_dict(), {f"module.{name}": each for name, each in network.state_dict().items()}):
        card = models.publish(store, "net", state, draft(f"{HERE}:parallel", {}, task="classification"))
        loaded = models.load(store, card, trusted=("tests",))
        assert torch.equal(loaded(images), network(images))


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
def test_torchscript_is_refused():
    with pytest.raises(InputError, match="must be written in Python; it is TorchScript"):
        build("scripted")
    with pytest.raises(InputError, match="must be written in Python; it is TorchScript"):
        classifier(f"{HERE}:scripted")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("with_lock", "must be of members that can be sent to other processes: cannot pickle '_thread.lock' object"),
        ("with_function", "sent to other processes: Can't pickle local object"),
        ("with_computed_tensor", "a tensor that was computed with a gradient is one of them"),
    ],
)
def test_networks_that_no_cell_can_be_given_are_refused(name, sentence):
    network = build(name)
    check_fit(network, DIGITS, name)  # they can be trained
    with pytest.raises(InputError, match=sentence):
        check_sendable(network, name)
    with pytest.raises(InputError, match=sentence):
        slices.check(slices.Subject(name, network, DIGITS, "Linf"), [], [0.1])


ANSWERS = [
    ("Tuple", r"with logits of shape \(1, (10|any)\); they are tuple"),
    ("Dict", r"with logits of shape \(1, (10|any)\); they are dict"),
    ("TwoInputs", "does not fit digits .*: .*missing 1 required positional argument: 'lengths'"),
    ("Half", "must answer digits .* with logits in float32; they are in float16"),
    ("Asserting", r"does not fit digits \(1 channel of 8x8\): AssertionError"),
]


@pytest.mark.parametrize(("name", "sentence"), [*ANSWERS, ("OneOfTwo", "must answer the same input alike")])
def test_answers_that_no_study_can_use_are_refused(name, sentence):
    with pytest.raises(InputError, match=sentence):
        check_fit(build(name), DIGITS, name)


@pytest.mark.parametrize(("name", "sentence"), ANSWERS)
def test_the_same_of_networks_to_attack(name, sentence):
    with pytest.raises(InputError, match=sentence):
        slices.check(slices.Subject(name, build(name), DIGITS, "Linf"), [], [0.1])


def test_a_network_may_have_no_weights():
    check_fit(build("weightless"), DIGITS, "weightless")
