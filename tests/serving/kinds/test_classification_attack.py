"""Attacks on a classifier, in this process: what is asked, what it may cost, when it stops, what is answered."""

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from jobs.common.attacks import ATTACKS, PGD, Ball
from service.errors import BusyError, InputError
from serving.http.messages import Form
from serving.http.protocol import InferRequest
from serving.http.settings import Attacks
from serving.kinds import classification_attack, image_attack
from serving.kinds.classification import Classification
from serving.kinds.classification_attack import ClassificationAttack
from serving.kinds.work import Abandoned, Attacked
from tests.serving.kinds.test_classification import endpoint
from tests.serving.models import classifier_network, pixels

FEW = {  # what makes each attack short
    "fgsm": {},
    "pgd": {"steps": 3},
    "carlini_wagner": {"norm": "L2", "steps": 5, "binary_search_steps": 2},
    "apgd": {"steps": 3},
    "apgd_targeted": {"steps": 3, "targets": 2},
    "fab": {"steps": 2, "targets": 2},
    "ddn": {"norm": "L2", "steps": 5},
    "fmn": {"norm": "L0", "epsilon": 3, "steps": 5},
    "sigma_zero": {"norm": "L0", "epsilon": 3, "steps": 5},
    "sparse_rs": {"norm": "L0", "epsilon": 3, "queries": 5},
    "square": {"queries": 5},
    "hop_skip_jump": {"queries": 30},
    "autoattack": {"version": "rand"},
}


def work_of(
    parameters: dict[str, Any],
    model: Classification | None = None,
    limits: Attacks | None = None,
    uploaded: bool = False,
    **inputs: Tensor,
) -> ClassificationAttack:
    arrays = {"images": pixels(2).numpy()} | {name: tensor.numpy() for name, tensor in inputs.items()}
    given = {name: value for name, value in {"epsilon": 0.1, **parameters}.items() if value is not None}
    request = InferRequest("", arrays, given, None, False)
    return classification_attack.prepare(model or endpoint(), request, Form(uploaded=uploaded), limits or Attacks())


def run(work: ClassificationAttack) -> Attacked:
    return work.compute(lambda: False)


@pytest.mark.parametrize("kind", ATTACKS)
def test_every_attack_of_the_library_is_served(kind: str) -> None:
    model, images = endpoint(), pixels(4, seed=3)
    answer = run(work_of({"attack": kind, **FEW[kind]}, model, images=images)).answer
    assert tuple(answer) == ClassificationAttack.outputs and {len(array) for array in answer.values()} == {4}
    norm, epsilon = FEW[kind].get("norm", "Linf"), FEW[kind].get("epsilon", 0.1)
    differences = answer["adversarials"] - images.numpy()
    order = {"Linf": np.inf, "L2": 2, "L0": 0}[norm]
    norms = np.linalg.norm(differences.reshape(4, -1), order, axis=1)
    np.testing.assert_allclose(answer["distance"], norms, atol=1e-6)
    assert (norms <= epsilon + 1e-5).all()
    np.testing.assert_array_equal(answer["successful"], answer["prediction"] != answer["adversarial_prediction"])
    assert answer["adversarials"].min() >= 0 and answer["adversarials"].max() <= 1


def test_l0_counts_coordinates() -> None:
    """What a request asks of them is whole, within the image, and within the budget of passes."""
    with pytest.raises(InputError, match="epsilon must be a whole number of coordinates in L0; it is 2.5"):
        work_of({"attack": "fmn", "norm": "L0", "epsilon": 2.5})
    with pytest.raises(InputError, match=r"epsilon must be at most \d+, .* in L0; it is 100000"):
        work_of({"attack": "fmn", "norm": "L0", "epsilon": 100_000})
    with pytest.raises(InputError, match="norm must be L0 for sigma_zero; it is 'Linf'"):
        work_of({"attack": "sigma_zero"})
    with pytest.raises(InputError, match=r"attack 'sigma_zero' must take at most .* passes"):
        work_of({"attack": "sigma_zero", "norm": "L0", "epsilon": 2, "steps": 90_000})


def test_the_answer_is_that_of_the_library() -> None:
    net, images, labels = classifier_network(), pixels(6), torch.arange(6)
    model = endpoint(net)
    work = work_of({"steps": 8, "restarts": 2, "seed": 5}, model, images=images, labels=labels)
    answer = run(work).answer
    expected = PGD(steps=8, restarts=2).run(net.requires_grad_(False), images, labels, Ball("Linf", 0.1), seed=5)
    np.testing.assert_array_equal(answer["successful"], expected.successful)
    np.testing.assert_allclose(answer["adversarials"], expected.adversarials, atol=1e-5)
    np.testing.assert_array_equal(answer["queries"], expected.queries)
    np.testing.assert_array_equal(answer["gradients"], expected.gradients)
    assert answer["successful"].any()


def test_without_labels_the_models_own_predictions_are_attacked() -> None:
    model, images = endpoint(), pixels(6)
    with torch.no_grad():
        labels = model.network(images).argmax(1)
    given_labels, predicted = (run(work_of({}, model, images=images, **given)) for given in ({"labels": labels}, {}))
    for name in ClassificationAttack.outputs:
        np.testing.assert_array_equal(given_labels.answer[name], predicted.answer[name])
    assert (predicted.answer["prediction"] == labels.numpy()).all() and predicted.answer["distance"].min() > 0


def test_a_target_is_where_it_leads() -> None:
    model, images = endpoint(), pixels(6)
    prediction = model.logits(images).argmax(1)
    targets = (prediction + 1) % 10
    answer = run(work_of({"epsilon": 0.3, "steps": 40}, model, images=images, targets=targets)).answer
    reached = answer["adversarial_prediction"] == targets.numpy()
    assert reached.any()
    np.testing.assert_array_equal(answer["successful"], reached)


@pytest.mark.parametrize("uploaded", [True, False])
def test_a_parameter_stands_for_the_label_or_target_of_all_images(uploaded: bool) -> None:
    work = work_of({"label": 3, "target": 4}, uploaded=uploaded, images=pixels(2))
    assert work.labels is not None and work.labels.tolist() == [3, 3]
    assert work.targets is not None and work.targets.tolist() == [4, 4]
    with pytest.raises(InputError, match="parameter 'label' must be a whole number from 0 to 9; it is 10"):
        work_of({"label": 10})
    with pytest.raises(InputError, match="parameter 'target' and input 'targets' exclude each other"):
        work_of({"target": 4}, images=pixels(2), targets=torch.tensor([0, 1]))


def test_8_bits_may_undo_a_success() -> None:
    """A perturbation far below half a step of 8 bits vanishes in a PNG."""

    class Border(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            mean = images.flatten(1).mean(1)
            return torch.stack([mean - 51.2 / 255, 51.2 / 255 - mean], dim=1) * 1e3

    model = endpoint(Border(), settings={"classes": ["light", "dark"]})
    images = torch.full((1, 1, 8, 8), 51 / 255)
    small, large = (run(work_of({"epsilon": epsilon}, model, images=images)).answer for epsilon in (0.4 / 255, 8 / 255))
    assert small["successful"].item() and not small["rounded_successful"].item()
    assert large["successful"].item() and large["rounded_successful"].item()


def test_what_is_done_is_described_with_every_default() -> None:
    described = work_of({"attack": "apgd", "norm": "L2", "steps": 7}).parameters
    assert described == {
        "attack": "apgd", "norm": "L2", "epsilon": 0.1, "seed": 0, "steps": 7, "restarts": 1, "rho": 0.75,
        "passes": 1, "confirmations": 0, "large_epsilon": False, "loss": "cross_entropy",
    }  # fmt: skip


def test_logits_that_are_not_finite_are_no_success_and_no_prediction() -> None:
    images = (pixels(2) * 16).round() / 16
    network = classifier_network()

    class Lost(nn.Module):
        def forward(self, points: Tensor) -> Tensor:
            changed = (16 * points % 1).flatten(1).any(1, keepdim=True)
            return network(points).masked_fill(changed, torch.nan)  # type: ignore[no-any-return]

    attacked = run(work_of({"epsilon": 0.3}, endpoint(Lost()), images=images))
    assert not attacked.answer["successful"].any() and not attacked.answer["rounded_successful"].any()
    assert attacked.answer["adversarial_prediction"].tolist() == [-1, -1]
    assert np.isfinite(attacked.answer["adversarials"]).all()
    (warning,) = attacked.warnings
    assert "the logits of 2 of 2 samples were NaN or infinite" in warning


@pytest.mark.parametrize("passes", [1, 3])
def test_a_model_that_is_random_is_attacked_as_it_is(passes: int) -> None:
    """Not a trace of one of its members. It is told, unless the attack is meant for such models."""
    members, draws, answered = [classifier_network(), classifier_network(seed=1)], random.Random(0), 0

    class Mixed(nn.Module):
        def forward(self, points: Tensor) -> Tensor:
            nonlocal answered
            answered += len(points)
            return members[draws.random() < 0.5](points)  # type: ignore[no-any-return]

    model = endpoint(Mixed())
    assert len(model.randomised) == 1
    answered = 0
    attacked = run(work_of({"attack": "apgd", "steps": 5, "passes": passes}, model))
    asked = int(attacked.answer["queries"].sum())
    assert asked >= 2 and answered == asked + 3 * 2, "and the images, the adversarials and these in 8 bits"
    assert ("differently each time" in " ".join(attacked.warnings)) == (passes == 1)


def test_masked_gradients_are_told() -> None:
    class Flat(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return (images.flatten(1)[:, :10] * 4).round() + 0 * images.flatten(1)[:, :10]

    model = endpoint(Flat())
    (warning,) = run(work_of({}, model)).warnings
    assert "gradients may be masked" in warning


@pytest.mark.parametrize(
    ("parameters", "inputs", "sentence"),
    [
        ({"epsilon": None}, {}, "parameter 'epsilon' is missing"),
        ({"epsilon": 8}, {}, "8 of 255 is 0.0314"),
        ({"epsilon": "8/255"}, {}, "must be a number; it is '8/255'"),
        ({"epsilon": -0.1}, {}, "must be above 0"),
        ({"epsilon": float("nan")}, {}, "epsilon must be above 0; it is nan"),
        ({"epsilon": 10**309}, {}, "epsilon must be finite; it is inf"),
        ({"epsilon": 1e-39, "norm": "L1"}, {}, "epsilon must be at least 1.17549e-38"),
        ({"epsilon": 9.0, "norm": "L2"}, {}, "the largest distance of two images of 64 pixels"),
        ({"norm": "linf"}, {}, "did you mean 'Linf'"),
        ({"norm": 2}, {}, "unknown norm 2"),
        ({"attack": "pdg"}, {}, "did you mean 'pgd'"),
        ({"attack": 3}, {}, "unknown attack 3"),
        ({"attack": "carlini_wagner"}, {}, "norm must be L2 for carlini_wagner"),
        ({"stepps": 3}, {}, "did you mean 'steps'"),
        ({"attack": "fgsm", "steps": 3}, {}, "unknown parameter 'steps'"),
        ({"kind": "fgsm"}, {}, "unknown parameter 'kind'"),
        ({"steps": 0}, {}, "parameters.steps must be at least 1; it is 0"),
        ({"steps": 2.5}, {}, "parameters.steps must be a whole number; it is 2.5"),
        ({"steps": "9"}, {}, "parameters.steps must be a whole number; it is '9'"),
        ({"random_start": 1}, {}, "parameters.random_start must be true or false; it is 1"),
        ({"loss": "ce"}, {}, "parameters.loss must be"),
        ({"seed": -1}, {}, "it is -1"),
        ({"seed": 2**64}, {}, "parameter 'seed'"),
        ({"seed": True}, {}, "it is true"),
        ({}, {"label": torch.tensor([0, 1])}, "did you mean 'labels'"),
        ({}, {"labels": torch.tensor([0, 1, 2])}, "must have a class for each of 2 images; it has 3"),
        ({}, {"labels": torch.tensor([0, 10])}, "must be a class, from 0 to 9; it is 10"),
        ({}, {"targets": torch.tensor([0, -1])}, "it is -1"),
        ({}, {"labels": torch.tensor([0.0, 1.0])}, "datatype must be INT64; it is FP32"),
        ({}, {"labels": torch.tensor([[0, 1]])}, "it is [1, 2]"),
        ({}, {"images": pixels(2) * 255}, "divide by 255"),
        ({}, {"images": pixels(2, side=9)}, "it is [2, 1, 9, 9]"),
    ],
)
def test_what_makes_no_sense_is_refused_before_the_model_is_asked(
    parameters: dict[str, Any], inputs: dict[str, Tensor], sentence: str
) -> None:
    with pytest.raises(InputError) as raised:
        work_of(parameters, **inputs)
    assert sentence in str(raised.value)


def test_a_target_that_is_the_label_is_refused() -> None:
    labels = torch.tensor([1, 2])
    with pytest.raises(InputError, match=r"targets\[1\] must be another class than the label; it is 2"):
        run(work_of({}, labels=labels, targets=torch.tensor([0, 2])))


def test_two_classes_are_too_few_for_the_difference_of_logits_ratio() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).eval()
    model = endpoint(net, settings={"classes": ["no", "yes"]})
    with pytest.raises(InputError, match="at least 3 classes for pgd with these options; it has 2"):
        work_of({"loss": "dlr"}, model)


@pytest.mark.parametrize(
    ("limits", "parameters", "sentence"),
    [
        (Attacks(rows=1), {}, "at most 1 rows (attacks.rows); it has 2"),
        (
            Attacks(passes=100),
            {"steps": 50},
            "at most 100 passes through the model for each image (attacks.passes); it takes up to 101",
        ),
        (Attacks(passes=100), {"attack": "square"}, "(attacks.passes)"),
        (Attacks(passes=2000), {"attack": "autoattack"}, "(attacks.passes)"),
        (Attacks(gmacs=1e-3), {"steps": 100}, "(attacks.gmacs)"),
    ],
)
def test_over_the_budget_the_cap_is_named(limits: Attacks, parameters: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError) as raised:
        work_of(parameters, limits=limits)
    assert sentence in str(raised.value)


def test_what_is_allowed_is_as_much_as_is_done() -> None:
    """The multiplications of an attack on images that nothing breaks are those that its budget was checked for."""
    model = endpoint()
    work = work_of({"steps": 10, "epsilon": 1e-9}, model, Attacks(passes=21))
    answer = run(work).answer
    assert not answer["successful"].any()
    assert (answer["queries"] + answer["gradients"] == 21 + 1).all(), "and the clean image"


def test_it_stops_at_the_next_pass_when_nobody_waits() -> None:
    passes = 0

    def nobody_waits() -> bool:
        nonlocal passes
        passes += 1
        return passes > 20

    model = endpoint(classifier_network())
    work = work_of({"steps": 1000, "epsilon": 1e-9}, model)
    with pytest.raises(Abandoned):
        work.compute(nobody_waits)
    assert passes == 21


def test_it_stops_when_it_takes_too_long() -> None:
    limits = Attacks(seconds=0.2, passes=200_000)
    work = work_of({"steps": 90_000, "epsilon": 1e-9}, limits=limits)
    with pytest.raises(BusyError, match=r"must end within 0.2 s \(attacks.seconds\)"):
        run(work)


@pytest.mark.parametrize("kind", ["pgd", "hop_skip_jump"])
def test_whoever_leaves_pays_for_all_that_was_asked(kind: str) -> None:
    """What is given back of an attack that does not finish is counted by calls, also where a pass has many points."""
    calls = 0

    def stopped() -> bool:
        nonlocal calls
        calls += 1
        return False

    work = work_of({"attack": kind, **FEW[kind]}, images=pixels(1, seed=3))
    answer = work.compute(stopped).answer
    assert calls >= int(answer["queries"].sum())


@pytest.mark.parametrize("epsilon", [1e-5, 0.2])
def test_the_model_itself_has_the_last_word(monkeypatch: pytest.MonkeyPatch, epsilon: float) -> None:
    """And not what was made of it for many passes, whose rounding is another: the model itself is attacked then."""

    class Other(nn.Module):
        def forward(self, points: Tensor) -> Tensor:
            logits: Tensor = network(points)
            return logits + 30 * (points != images).flatten(1).any(1, keepdim=True) * nn.functional.one_hot(ahead, 10)

    network, images = classifier_network().requires_grad_(False), pixels(2)
    labels, ahead = network(images).argmax(1), network(images).argsort(1)[:, -2]
    monkeypatch.setattr(image_attack, "prepared", lambda model, images: Other())
    answer = run(work_of({"epsilon": epsilon, "steps": 20}, endpoint(network), images=images)).answer
    expected = PGD(steps=20).run(network, images, labels, Ball("Linf", epsilon))
    assert expected.successful.all() == (epsilon > 0.1)
    np.testing.assert_array_equal(answer["successful"], expected.successful)
    np.testing.assert_array_equal(answer["prediction"] != answer["adversarial_prediction"], expected.successful)
    np.testing.assert_allclose(answer["adversarials"], expected.adversarials, atol=1e-6)
    np.testing.assert_array_equal(answer["minimum_distance"] >= 0, expected.successful)
    assert (answer["queries"] > expected.queries.numpy()).all(), "those that led to nothing count as well"
