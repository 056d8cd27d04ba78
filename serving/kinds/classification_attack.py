"""One attack, from a request to its answer. What is said here of requests is for classifiers.

Inputs: "images"; optional "labels" INT64 (rows,), by default what the model takes the images for, and "targets" INT64
(rows,), the class that each image is to be taken for. An uploaded image has parameters `label` and `target` instead.
Parameters:

    epsilon   radius of the ball, in the units of the pixels; the only one that is needed
    norm      "Linf" (default), "L2" or "L1"
    attack    default "pgd"; the other parameters are those of the attack: steps, restarts, loss, ...
    seed      default 0

Outputs, beside the adversarials: predictions before and after, whether each image was broken, whether it stays so when
its pixels are rounded to 8 bits as in a PNG, the norm of its perturbation, the least norm known to break it (-1: none),
and the passes forward (queries) and backward (gradients) that it took.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, get_args

import numpy as np
import torch
from torch import Tensor, nn

from jobs.common.attacks import ATTACKS, Attack, Ball, Goal, Norm, checks
from jobs.common.attacks.prepared import prepared
from service.errors import BusyError, InputError, nearest
from service.models import ModelCard, TensorSpec
from service.planning.validation import validate
from serving.http.protocol import InferRequest, Scalar, check_fits, check_parameters
from serving.http.settings import Attacks
from serving.http.tensors import Array
from serving.kinds.classification import IMAGES, Classification, check_pixels
from serving.kinds.endpoint import Abandoned, Answer, Stopped

LABELS, TARGETS = "labels", "targets"
OF_UPLOAD = {"label": LABELS, "target": TARGETS}  # parameter -> the input that it stands for
COMMON = ("attack", "epsilon", "norm", "seed")
DEFAULT, DEFAULT_NORM = "pgd", "Linf"
MOST_SEED = 2**63 - 1
OUTPUTS = (
    "adversarials",
    "prediction",
    "adversarial_prediction",
    "broken",
    "rounded_broken",
    "distance",
    "minimum_distance",
    "queries",
    "gradients",
)


class Victim(Protocol):
    """What an attack needs of the endpoint of a model."""

    card: ModelCard
    classes: tuple[str, ...]
    device: torch.device
    network: nn.Module

    def gmacs(self, shape: Sequence[int]) -> float: ...

    def logits(self, images: Tensor) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class AttackWork:
    """An attack that was validated against its model and only has to be computed.

    images: (rows, channels, height, width). labels, targets: int64 (rows,); of a model of pixels (rows, height, width),
    where below 0 does not count.
    """

    outputs: ClassVar[tuple[str, ...]] = OUTPUTS

    attack: Attack
    ball: Ball
    seed: int
    images: Tensor
    labels: Tensor | None
    targets: Tensor | None

    def described(self) -> Mapping[str, Scalar]:
        """All parameters, those that were left out too."""
        own = self.attack.model_dump(exclude={"kind"}, exclude_none=True)
        return {
            "attack": self.attack.kind,
            "norm": self.ball.norm,
            "epsilon": self.ball.epsilon,
            "seed": self.seed,
            **own,
        }

    def truth(self, before: Tensor) -> Tensor:
        """The labels that are attacked, on the device of the model. before: its logits of the images."""
        return before.argmax(1) if self.labels is None else self.labels.to(before.device)

    def told(self, before: Tensor, labels: Tensor, targets: Tensor | None, after: Tensor, rounded: Tensor) -> Answer:
        """What the predictions say of the attack. before, after, rounded: logits of the images, of the adversarials,
        and of these with 8 bits.
        """
        return {
            "prediction": before.argmax(1).cpu().numpy(),
            "adversarial_prediction": after.argmax(1).cpu().numpy(),
            "rounded_broken": Goal(labels, targets).reached(rounded).cpu().numpy(),
        }


# ---- before the attack ---------------------------------------------------------------------------------------------


def prepare(model: Classification, request: InferRequest, uploaded: bool, limits: Attacks) -> AttackWork:
    """Check everything that can be known before the model is asked. InputError, one sentence."""
    parameters = dict(request.parameters)
    inputs = dict(request.inputs)
    if uploaded:
        for name, stands_for in OF_UPLOAD.items():
            if name in parameters:
                inputs[stands_for] = np.array([whole(name, parameters.pop(name), MOST_SEED)])
    _check_inputs(model, inputs)
    attack, ball, seed = asked(parameters)
    tensors = {
        name: torch.tensor(array) for name, array in inputs.items()
    }  # copies: an array may be a view of the body
    work = AttackWork(attack, ball, seed, tensors[IMAGES], tensors.get(LABELS), tensors.get(TARGETS))
    check(model, work, limits)
    return work


def asked(parameters: Mapping[str, Scalar]) -> tuple[Attack, Ball, int]:
    """The attack, its ball and its seed. InputError about the first parameter that none of them knows or allows."""
    return _attack(parameters), _ball(parameters), whole("seed", parameters.get("seed", 0), MOST_SEED)


def check(model: Victim, work: AttackWork, limits: Attacks) -> None:
    """InputError if the attack does not go with its images, or takes more than is allowed."""
    attack = work.attack
    checks.check_ball(attack.kind, attack.norms, work.ball, work.images)
    checks.check_classes(attack.kind, len(model.classes), attack.fewest_classes(work.targets is not None))
    _check_budget(model, work, limits)


def _check_inputs(model: Classification, inputs: Mapping[str, Array]) -> None:
    optional = [TensorSpec(name=name, datatype="INT64", shape=(-1,)) for name in (LABELS, TARGETS)]
    known = [IMAGES, LABELS, TARGETS]
    for name in inputs:
        if name not in known:
            raise InputError(f"unknown input {name!r}", nearest(name, known))
    check_fits(inputs, [*model.inputs, *(spec for spec in optional if spec.name in inputs)])
    check_pixels(inputs[IMAGES])
    for name in (LABELS, TARGETS):
        classes = inputs.get(name)
        if classes is None:
            continue
        if len(classes) != len(inputs[IMAGES]):
            raise InputError(f"input {name!r}: {len(classes)} classes for {len(inputs[IMAGES])} images")
        if wrong := [int(each) for each in classes if not 0 <= each < len(model.classes)]:
            raise InputError(f"input {name!r}: {wrong[0]} is not a class; they are 0 to {len(model.classes) - 1}")


def _attack(parameters: Mapping[str, Scalar]) -> Attack:
    kind = parameters.get("attack", DEFAULT)
    if kind not in ATTACKS:
        raise InputError(f"parameter 'attack': unknown attack {kind!r}", nearest(str(kind), ATTACKS))
    found = ATTACKS[str(kind)]
    check_parameters(parameters, (*COMMON, *(name for name in found.model_fields if name != "kind")))
    own: dict[str, Any] = {name: value for name, value in parameters.items() if name not in COMMON}
    return validate(found, own, "parameters")


def _ball(parameters: Mapping[str, Scalar]) -> Ball:
    norm, epsilon = parameters.get("norm", DEFAULT_NORM), parameters.get("epsilon")
    norms: tuple[Norm, ...] = get_args(Norm)
    if epsilon is None:
        raise InputError("parameter 'epsilon' is missing", "in the units of the pixels: 8 of 255 is 0.0314")
    if isinstance(epsilon, bool | str):
        raise InputError(f"parameter 'epsilon': {epsilon!r} is not a number", "8/255 is 0.0314")
    for known in norms:
        if norm == known:
            return Ball(known, float(epsilon))
    raise InputError(f"parameter 'norm': unknown norm {norm!r}", nearest(str(norm), norms))


def passes_of(model: Victim, work: AttackWork) -> int:
    """Passes forward and back that an attack takes at most, for each image."""
    cost = work.attack.cost(work.ball.norm, len(model.classes), work.targets is not None)
    return cost.forward + cost.backward


def gmacs_of(model: Victim, work: AttackWork) -> float:
    """10^9 multiplications that it takes at most: a pass back to the pixels takes as many as one forward."""
    return passes_of(model, work) * model.gmacs(work.images.shape)


def _check_budget(model: Victim, work: AttackWork, limits: Attacks) -> None:
    rows, passes, gmacs = len(work.images), passes_of(model, work), gmacs_of(model, work)
    if rows > limits.rows:
        raise InputError(f"input {IMAGES!r}: {rows} rows; at most {limits.rows} are attacked at once (attacks.rows)")
    if passes > limits.passes:
        raise InputError(
            f"attack {work.attack.kind!r} takes up to {passes:,} passes through the model for each image; "
            f"{limits.passes:,} are allowed (attacks.passes)",
            "ask for fewer steps, restarts or queries",
        )
    if gmacs > limits.gmacs:
        raise InputError(
            f"{rows} images x {passes:,} passes take up to {gmacs:,.0f} billion multiplications; "
            f"{limits.gmacs:,.0f} are allowed (attacks.gmacs)",
            "send fewer images, or ask for fewer steps, restarts or queries",
        )


def whole(name: str, value: Scalar, most: int) -> int:
    """A parameter that is a whole number from 0 on. InputError if it is not."""
    if type(value) is not int or not 0 <= value <= most:
        raise InputError(f"parameter {name!r}: {value!r} is not allowed; whole numbers from 0 on are")
    return value


# ---- in a thread ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Attacked:
    """What came out. warnings: why it may flatter the model."""

    answer: Answer
    warnings: tuple[str, ...]


def compute(model: Victim, work: AttackWork, limits: Attacks, stopped: Stopped) -> Attacked:
    """Attack. Raises Abandoned at the first pass after `stopped()` becomes true, BusyError when it takes too long."""
    deadline = time.monotonic() + limits.seconds

    def go_on() -> None:
        if stopped():
            raise Abandoned
        if time.monotonic() > deadline:
            raise BusyError(
                f"the attack was not done within {limits.seconds:g} s (attacks.seconds)",
                "send fewer images, or ask for fewer steps, restarts or queries",
            )

    go_on()
    images = work.images.to(model.device)
    network = prepared(model.network, images[:2])

    def guarded(points: Tensor) -> Tensor:
        go_on()
        logits: Tensor = network(points)
        return logits

    before = model.logits(images)
    labels = work.truth(before)
    targets = None if work.targets is None else work.targets.to(model.device)
    result = work.attack.run(guarded, images, labels, work.ball, work.seed, targets)
    after, rounded = model.logits(result.adversarials), model.logits((result.adversarials * 255).round() / 255)
    minimum = result.minimum_distances.cpu()
    found = {
        "adversarials": result.adversarials.cpu().numpy(),
        **work.told(before, labels, targets, after, rounded),
        "broken": result.successful.cpu().numpy(),
        "distance": result.distances.cpu().numpy(),
        "minimum_distance": torch.where(minimum.isfinite(), minimum, -1.0).numpy(),
        "queries": result.queries.cpu().numpy(),
        "gradients": result.gradients.cpu().numpy(),
    }
    answer = {name: found[name] for name in work.outputs}
    return Attacked(answer, result.warnings)
