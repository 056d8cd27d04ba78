"""What can be wrong with a model or with data before an attack begins, and what makes its result doubtful afterwards.

`check_...` raise InputError, one sentence. The others return warnings, one sentence each: the flags of AutoAttack
(Croce & Hein 2020) for models whose robustness an attack overstates.
"""

import re
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from jobs.common.attacks.ball import Ball, Norm
from service.errors import FieldError, InputError

SAME_LOGITS = 1e-4
"""distance of normalised logits from which a model is called randomised"""
PROBABILITY = 1e-5
"""how near to 1 the sum of probabilities is"""
PASSES = 5
"""over all images, in which a randomised model is told from one that is not"""
FEW, MORE_PASSES = 2, 60
"""images, and passes over these: one that picks one of its members at random may pick the same a few times"""
SAMPLES = re.compile(r"(\d+) of (\d+) samples")
SQUARE_GAIN = 0.002
"""robust accuracy that Square may take after gradient attacks"""


def check_ball(attack: str, norms: tuple[Norm, ...], ball: Ball, images: Tensor) -> None:
    """The attack knows the norm, and epsilon is not beyond the diameter of the box."""
    if ball.norm not in norms:
        raise FieldError("norm", f"be {' or '.join(norms)} for {attack}", ball.norm)
    pixels = images[0].numel() if len(images) else 0
    diameter = {"Linf": 1.0, "L2": pixels**0.5, "L1": float(pixels), "L0": float(pixels)}[ball.norm]
    if pixels and ball.epsilon > diameter:
        units = f"epsilon is in the units of the pixels: {ball.epsilon:g} of 255 is {ball.epsilon / 255:.3g}"
        raise FieldError(
            "epsilon",
            f"be at most {diameter:g}, the largest distance of two images of {pixels} pixels in {ball.norm}",
            ball.epsilon,
            hint="epsilon is a number of coordinates in L0" if ball.norm == "L0" else units,
        )


def check_batch(images: Tensor, labels: Tensor, targets: Tensor | None, first: int = 0) -> None:
    """Images are a batch of finite floats in [0, 1], labels and targets one class number each, and differ.

    Or they are maps of class numbers, in which something counts. first: the place of the first of them in the whole
    set, by which an image is named.
    """
    if images.dim() != 4:
        raise InputError(
            f"images must be (batch, channels, height, width); their shape is {tuple(images.shape)}",
            hint="images.unsqueeze(0) makes a batch of one image" if images.dim() == 3 else None,
        )
    if not images.numel():
        raise InputError(f"images must have pixels; their shape is {tuple(images.shape)}")
    if not images.is_floating_point():
        raise InputError(
            f"pixels must be floating-point numbers in [0, 1]; they are {_name(images.dtype)}", hint="divide by 255"
        )
    if not bool(images.isfinite().all()):
        raise InputError("pixels must be in [0, 1]; some are NaN or infinite")
    least, most = float(images.amin()), float(images.amax())
    if least < 0 or most > 1:
        hint = "normalisation belongs inside the model" if least < 0 else "divide by 255"
        raise InputError(f"pixels must be in [0, 1]; they are in [{least:g}, {most:g}]", hint=hint)
    if labels.dim() == 3:
        _check_maps(labels, targets, images, first)
        return
    _check_classes_of("labels", labels, len(images), first)
    if targets is not None:
        _check_classes_of("targets", targets, len(images), first)
        if bool((targets == labels).any()):
            row = int((targets == labels).nonzero()[0])
            raise FieldError(f"targets[{first + row}]", "be another class than the label", int(targets[row]))


def check_evaluation_mode(model: Callable[[Tensor], Tensor]) -> None:
    """No part of a module is in training mode, where batches change the statistics and dropout is random."""
    if isinstance(model, nn.Module):
        for name, part in model.named_modules():
            if part.training:
                where = f"its part {name!r}" if name else "it"
                raise InputError(f"the model must be in evaluation mode; {where} is in training mode", "model.eval()")


def check_logits(logits: Any, labels: Tensor, targets: Tensor | None, first: int = 0) -> None:
    """The model gave finite logits (batch, classes), not probabilities; labels and targets are among the classes.

    For maps of labels (batch, height, width) the logits are (batch, classes, height, width). first: as `check_batch`.
    """
    if not isinstance(logits, Tensor):
        raise InputError(f"the model must return a tensor of logits; it returns a {type(logits).__name__}")
    batch, *sides = labels.shape
    if logits.dim() != labels.dim() + 1 or logits.shape[:1] + logits.shape[2:] != labels.shape or logits.shape[1] < 2:
        expected = ", ".join(map(str, (batch, "classes", *sides)))
        raise InputError(
            f"the model must return logits ({expected}) of at least 2 classes; their shape is {tuple(logits.shape)}"
        )
    if not bool(logits.isfinite().all()):
        row = int((~logits.isfinite()).flatten(1).any(1).nonzero()[0])
        raise InputError(f"logits must be finite; those of images[{first + row}] are not")
    sums = logits.sum(1)
    probable = (logits > -PROBABILITY) & (logits < 1 + PROBABILITY)
    if bool(((sums - 1).abs() < PROBABILITY).all() & probable.all()):
        raise InputError(
            "the model must return logits; it returns probabilities, whose softmax flattens the gradients",
            hint="drop the softmax, or return the logarithm of the probabilities",
        )
    for name, classes in (("labels", labels), ("targets", targets)):
        if classes is not None and bool((classes >= logits.shape[1]).any()):
            row, *pixel = (classes >= logits.shape[1]).nonzero()[0].tolist()
            last = f"be at most {logits.shape[1] - 1}, the last class of the model"
            raise FieldError(f"{name}{[first + row, *pixel]}", last, int(classes[(row, *pixel)]))


def check_takes(attack: str, takes_maps: bool, labels: Tensor) -> None:
    """An attack on classifiers is not given maps of labels."""
    if labels.dim() > 1 and not takes_maps:
        raise InputError(f"{attack} attacks classifiers alone, but fgsm and pgd attack maps of labels, too")


def check_classes(attack: str, classes: int, fewest: int) -> None:
    """The model has as many classes as the attack compares."""
    if classes < fewest:
        raise InputError(
            f"the model must have at least {fewest} classes for {attack} with these options; it has {classes}",
            hint="the margin loss needs 2",
        )


def zero_gradients(gradient: Tensor) -> list[str]:
    """Samples whose gradient is exactly zero, which no gradient attack can move. gradient: (batch, ...)."""
    zero = int((gradient.flatten(1) == 0).all(1).sum())
    if not zero:
        return []
    return [
        f"the gradient of {zero} of {len(gradient)} samples is zero, so gradients may be masked: "
        "run Square, which needs none, and a loss of logits (margin or dlr)"
    ]


def merged(warnings: Iterable[str]) -> dict[str, int]:
    """Warnings of many batches, each once: one that differs in its numbers alone is the same.

    Samples are added up: "1 of 10 samples" and "3 of 20 samples" are "4 of 30 samples"; other numbers are those of the
    first. Returns each with the number of batches that it comes from.
    """
    alike: dict[str, list[str]] = {}
    for sentence in warnings:
        alike.setdefault(re.sub(r"\d+", "#", sentence), []).append(sentence)

    def total(sentences: list[str]) -> str:
        samples = [tuple(map(int, counts.groups())) for each in sentences if (counts := SAMPLES.search(each))]
        sums = "{} of {} samples".format(*map(sum, zip(*samples, strict=True))) if samples else ""
        return SAMPLES.sub(sums, sentences[0])

    return {total(sentences): len(sentences) for sentences in alike.values()}


def not_finite(logits: Tensor, gradients: Tensor) -> list[str]:
    """Samples at whose points the model left the finite numbers. logits, gradients: bool (batch,), whose did so."""
    sentences = []
    if count := int(logits.sum()):
        sentences.append(
            f"the logits of {count} of {len(logits)} samples were NaN or infinite at some points that were tried: "
            "such points do not count as successes, and the attack may be too weak"
        )
    if count := int(gradients.sum()):
        sentences.append(
            f"the gradients of {count} of {len(gradients)} samples were NaN or infinite at some points that were "
            "tried: there NaN counts as 0, and the attack may be too weak"
        )
    return sentences


def randomised(model: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor) -> list[str]:
    """A model that answers the same images differently, in some of PASSES passes or of MORE_PASSES over FEW images."""
    if not (_varies(model, images, labels, PASSES) or _varies(model, images[:FEW], labels[:FEW], MORE_PASSES)):
        return []
    return [
        "the model answers the same images differently each time, so single gradients mislead: "
        "run the rand version of AutoAttack, or average over several passes and have successes confirmed"
    ]


def _varies(model: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, passes: int) -> bool:
    """Whether a pass gives other logits than the first, or another number of correct answers."""
    with torch.no_grad():
        first = model(images)
        for _ in range(passes - 1):
            logits = model(images)
            apart = torch.linalg.vector_norm(_unit(logits) - _unit(first), dim=1)
            correct = [int((each.argmax(1) == labels).sum()) for each in (first, logits)]
            if correct[0] != correct[1] or not float(apart.amax()) <= SAME_LOGITS:
                return True
    return False


def _unit(logits: Tensor) -> Tensor:
    return nn.functional.normalize(logits.nan_to_num(), dim=1)


def gradients_inside(model: Callable[[Tensor], Tensor], images: Tensor) -> list[str]:
    """A model that optimises while it answers (a dynamic defence): it calls autograd in its forward pass."""
    with _AutogradCalls() as calls:
        model(images)
    if not calls.count:
        return []
    return [
        "the model computes gradients inside its forward pass (a dynamic defence), "
        "so these attacks may be too weak: run one that is adapted to it"
    ]


def square_after_gradients(before: float, after: float) -> list[str]:
    """Square, without gradients, succeeded where gradient attacks failed. before, after: robust accuracy in [0, 1]."""
    if before - after <= SQUARE_GAIN:
        return []
    return [
        f"Square lowered the robust accuracy from {before:.1%} to {after:.1%} after gradient attacks, so gradients may "
        "be masked: run Square with more queries and restarts, and an attack that is adapted to the model"
    ]


def few_classes(classes: int, targets: int) -> list[str]:
    """Targeted attacks that find fewer classes than they aim at."""
    if classes > targets:
        return []
    return [f"the model has {classes} classes: targeted attacks aim at {classes - 1} classes instead of {targets}"]


class _AutogradCalls(TorchFunctionMode):
    """Counts what asks autograd for gradients while it is entered, in this thread."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.count += function in (torch.autograd.grad, torch.autograd.backward, Tensor.backward)
        return function(*args, **(kwargs or {}))


def _check_classes_of(name: str, classes: Tensor, batch: int, first: int) -> None:
    """One int64 class number a sample, from 0."""
    if classes.shape != (batch,):
        one_hot = classes.dim() == 2 and len(classes) == batch
        raise InputError(
            f"{name} must be one class number for each of {batch} images; their shape is {tuple(classes.shape)}",
            hint=f"one-hot rows become class numbers by {name}.argmax(1)" if one_hot else None,
        )
    if classes.dtype != torch.int64:
        raise InputError(f"{name} must be int64; they are {_name(classes.dtype)}", hint=f"{name}.long()")
    if bool((classes < 0).any()):
        row = int((classes < 0).nonzero()[0])
        raise FieldError(f"{name}[{first + row}]", "be at least 0", int(classes[row]))


def _check_maps(labels: Tensor, targets: Tensor | None, images: Tensor, first: int) -> None:
    """One int64 class number a pixel, or a number below 0 where none counts; one counts in each sample."""
    expected = (len(images), *images.shape[2:])
    counted = torch.ones_like(labels, dtype=torch.bool)
    for name, classes in (("labels", labels), ("targets", targets)):
        if classes is None:
            continue
        if classes.shape != expected:
            raise InputError(f"{name} must be of shape {expected}, as the images; it is {tuple(classes.shape)}")
        if classes.dtype != torch.int64:
            raise InputError(f"{name} must be int64; they are {_name(classes.dtype)}", hint=f"{name}.long()")
        counted &= classes >= 0
    if not bool(counted.flatten(1).any(1).all()):
        row = int((~counted.flatten(1).any(1)).nonzero()[0])
        raise InputError(f"a pixel of images[{first + row}] must count; all labels are below 0")


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
