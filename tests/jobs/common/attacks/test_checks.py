"""What is refused before an attack, one sentence each, and what is flagged."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from jobs.common.attacks import checks
from jobs.common.attacks.base import Ball
from jobs.common.attacks.carlini_wagner import CarliniWagner
from jobs.common.attacks.pgd import FGSM, PGD
from jobs.common.attacks.square import Square
from service.errors import InputError
from tests.jobs.common.attacks.networks import predictions, random_images, small_net

IMAGES = random_images(4, 1, 8, 8)
LABELS = torch.tensor([1, 2, 3, 4])
BALL = Ball("Linf", 0.1)


def with_pixel(value: float) -> Tensor:
    images = IMAGES.clone()
    images[2, 0, 1, 1] = value
    return images


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"images": with_pixel(1.5)}, "pixels must be in [0, 1]; they are in [0.0"),
    ({"images": IMAGES * 255}, " (divide by 255)"),
    ({"images": with_pixel(-0.1)}, " (normalisation belongs inside the model)"),
    ({"images": with_pixel(float("nan"))}, "some are NaN or infinite"),
    ({"images": with_pixel(float("inf"))}, "some are NaN or infinite"),
    (
        {"images": (IMAGES * 255).to(torch.uint8)},
        "pixels must be floating-point numbers in [0, 1]; they are uint8 (di",
    ),
    ({"images": IMAGES[0]}, "images must be (batch, channels, height, width); their shape is (1, 8, 8)"),
    ({"images": IMAGES.flatten(1)}, "height, width); their shape is (4, 64)"),
    ({"images": IMAGES[:0], "labels": LABELS[:0]}, "images must have pixels; their shape is (0, 1, 8, 8)"),
    ({"labels": torch.tensor([1, 2, 10, 4])}, "labels[2] must be at most 9, the last class of the model; it is 10"),
    ({"labels": torch.tensor([1, -2, 3, 4])}, "labels[1] must be at least 0; it is -2"),
    ({"labels": LABELS.float()}, "labels must be int64; they are float32 (labels.long())"),
    ({"labels": LABELS.int()}, "labels must be int64; they are int32"),
    (
        {"labels": nn.functional.one_hot(LABELS, 10)},
        "labels must be one class number for each of 4 images; their shape is (4, 10)",
    ),
    ({"labels": nn.functional.one_hot(LABELS, 10)}, "(one-hot rows become class numbers by labels.argmax(1))"),
    ({"labels": LABELS[:3]}, "labels must be one class number for each of 4 images; their shape is (3,)"),
    ({"targets": LABELS[:3]}, "targets must be one class number for each of 4 images; their shape is (3,)"),
    ({"targets": LABELS + 9}, "targets[0] must be at most 9, the last class of the model; it is 10"),
    ({"targets": torch.tensor([0, 0, 3, 0])}, "targets[2] must be another class than the label; it is 3"),
    (
        {"ball": Ball("L2", 9.0)},
        "epsilon must be at most 8, the largest distance of two images of 64 pixels in L2; it is 9",
    ),
    ({"ball": Ball("L1", 65.0)}, "epsilon must be at most 64, the largest distance"),
    ({"attack": CarliniWagner()}, "norm must be L2 for carlini_wagner; it is 'Linf'"),
    ({"model": small_net().train()}, "the model must be in evaluation mode; it is in training mode (model.eval())"),
    (
        {"model": nn.Sequential(small_net(), nn.Softmax(1)).eval()},
        "the model must return logits; it returns probabilities",
    ),
    (
        {"model": lambda images: small_net()(images)[:, :, None]},
        "of at least 2 classes; their shape is (4, 10, 1)",
    ),
    ({"model": lambda images: small_net()(images)[:2]}, "of at least 2 classes; their shape is (2, 10)"),
    ({"model": lambda images: small_net()(images)[:, :1]}, "must return logits (4, classes) of at least 2 classes"),
    ({"model": lambda images: [small_net()(images)]}, "the model must return a tensor of logits; it returns a list"),
    ({"model": lambda images: small_net()(images).log()}, "logits must be finite; those of images[0] are not"),
    (
        {"attack": PGD(loss="dlr"), "model": small_net(classes=2), "labels": LABELS % 2},
        "the model must have at least 3 classes for pgd ",
    ),
    (
        {
            "attack": FGSM(loss="dlr"),
            "model": small_net(classes=3),
            "labels": LABELS % 2,
            "targets": torch.full((4,), 2),
        },
        "at least 4 classes for fgsm with these options; it has 3 (the margin loss needs 2)",
    ),
]


@pytest.mark.parametrize(("changed", "sentence"), REFUSED, ids=[sentence for _, sentence in REFUSED])
def test_bad_input_is_refused_in_one_sentence(changed: dict[str, Any], sentence: str) -> None:
    given: dict[str, Any] = {"model": small_net(), "images": IMAGES, "labels": LABELS, "ball": BALL, "targets": None}
    attack = changed.get("attack", FGSM())
    given |= {name: value for name, value in changed.items() if name != "attack"}
    with pytest.raises(InputError, match=re.escape(sentence)):
        attack.run(**given)


def test_a_part_in_training_mode_is_named() -> None:
    model = small_net()
    model[3].train()
    with pytest.raises(InputError, match="its part '3' is in training mode"):
        FGSM().run(model, IMAGES, LABELS, BALL)


def test_probabilities_of_one_sample_only_are_logits() -> None:
    """Logits may look like a distribution for some sample, but not for all."""

    def model(images: Tensor) -> Tensor:
        logits = small_net()(images)
        logits = logits.clone()
        logits[0] = torch.eye(10)[1]
        return logits

    FGSM().run(model, IMAGES, LABELS, BALL)


def test_zero_gradients_are_flagged() -> None:
    """Rounded pixels: correct answers, no gradient. Square needs none and succeeds where PGD cannot."""
    linear = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).eval()
    with torch.no_grad():
        linear[1].weight.copy_(torch.randn(3, 64, generator=torch.Generator().manual_seed(0)))

    def model(images: Tensor) -> Tensor:
        return linear((images * 20).round() / 20)

    with torch.no_grad():
        labels = model(IMAGES).argmax(1)
    result = PGD().run(model, IMAGES, labels, Ball("Linf", 0.2))
    assert len(result.warnings) == 1 and result.warnings[0].startswith("the gradient of 4 of 4 samples is zero")
    assert "run Square" in result.warnings[0]
    assert Square(queries=300).run(model, IMAGES, labels, Ball("Linf", 0.2)).successful.all()
    assert PGD().run(linear, IMAGES, labels, BALL).warnings == ()


def test_a_randomised_model_is_flagged() -> None:
    net, generator = small_net(), torch.Generator().manual_seed(0)

    def noisy(scale: float) -> Callable[[Tensor], Tensor]:
        return lambda images: net(images + scale * torch.randn(images.shape, generator=generator))

    labels = predictions(net, IMAGES)
    assert checks.randomised(net, IMAGES, labels) == []
    assert checks.randomised(noisy(1e-7), IMAGES, labels) == []
    (sentence,) = checks.randomised(noisy(0.1), IMAGES, labels)
    assert "run the rand version of AutoAttack" in sentence


@pytest.mark.parametrize("how", ["grad", "backward", "functional"])
def test_gradients_inside_the_model_are_flagged(how: str) -> None:
    net = small_net()

    def purified(images: Tensor) -> Tensor:
        with torch.enable_grad():
            if how == "functional":
                slope = torch.func.grad(lambda points: net(points).square().sum())(images)
            else:
                points = images.clone().requires_grad_()
                energy = net(points).square().sum()
                if how == "backward":
                    energy.backward()
                slope = points.grad if how == "backward" else torch.autograd.grad(energy, points)[0]
        return net(images - 0.01 * slope)

    assert checks.gradients_inside(net, IMAGES) == []
    (sentence,) = checks.gradients_inside(purified, IMAGES)
    assert "a dynamic defence" in sentence


def test_square_after_gradient_attacks() -> None:
    assert checks.square_after_gradients(0.5, 0.5) == []
    assert checks.square_after_gradients(0.5, 0.4985) == []
    (sentence,) = checks.square_after_gradients(0.5, 0.49)
    assert "from 50.0% to 49.0%" in sentence


def test_few_classes() -> None:
    assert checks.few_classes(10, 9) == []
    (sentence,) = checks.few_classes(4, 9)
    assert sentence == "the model has 4 classes: targeted attacks aim at 3 classes instead of 9"


def test_an_image_is_named_by_its_place_in_the_whole_set() -> None:
    """Where a set is attacked in parts, as `first` says."""

    def model(images: Tensor) -> Tensor:
        return small_net()(images).index_fill(0, torch.tensor([2]), torch.nan)

    with pytest.raises(InputError, match=re.escape("those of images[42] are not")):
        FGSM().run(model, IMAGES, LABELS, BALL, first=40)
    for labels, sentence in ((LABELS.flip(0) - 3, "labels[42] must be at least 0"), (LABELS + 7, "labels[42] must be")):
        with pytest.raises(InputError, match=re.escape(sentence)):
            FGSM().run(small_net(), IMAGES, labels, BALL, first=40)
