"""An attack on a network that takes images, from a request to its answer.

What every such attack takes, beside the images and what a kind of model adds:

    epsilon   radius of the ball, in the units of the pixels, in L0 a number of coordinates; required
    norm      "Linf" (default), "L2", "L1" or "L0"
    attack    default "pgd"; the other parameters are those of the attack: steps, restarts, loss, ...
    seed      default 0
"""

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor

from jobs.common.attacks import ATTACKS, Attack, Ball, Norm, checks
from jobs.common.attacks.base import Model
from jobs.common.attacks.prepared import attack_prepared, prepared
from service.errors import FieldError, InputError
from service.models import TensorSpec
from service.planning.validation import validate
from serving.http.messages import Form
from serving.http.protocol import Scalar, check_parameters, fitted
from serving.http.settings import Attacks
from serving.http.tensors import Array
from serving.http.uploads import MODES, PNG_MEDIA, to_png
from serving.kinds.attack_options import MOST_SEED
from serving.kinds.base import choice, whole_number
from serving.kinds.budget import Words, check_budget, too_late
from serving.kinds.images import IMAGES, ImageNetwork, check_pixels
from serving.kinds.work import Answer, AttackCost, Attacked, AttackWork, Rendering, Stopped, check_of

LABELS, TARGETS = "labels", "targets"
COMMON = ("attack", "epsilon", "norm", "seed")
DEFAULT, DEFAULT_NORM = "pgd", "Linf"
FEWER = "send fewer images, or ask for fewer steps, restarts or queries"


@dataclass(frozen=True)
class Perturbation:
    """The part of a request that is the same for all attacks on images."""

    attack: Attack
    ball: Ball
    seed: int

    @classmethod
    def parse(cls, parameters: Mapping[str, Scalar]) -> "Perturbation":
        """InputError about the first parameter that is unknown or not allowed."""
        return cls(
            _attack(parameters), _ball(parameters), whole_number("seed", parameters.get("seed", 0), 0, MOST_SEED)
        )

    @property
    def parameters(self) -> Mapping[str, Scalar]:
        """All parameters, also those that had their default."""
        common: dict[str, Scalar] = {
            "attack": self.attack.kind,
            "norm": self.ball.norm,
            "epsilon": self.ball.epsilon,
            "seed": self.seed,
        }
        return common | self.attack.model_dump(exclude={"kind"}, exclude_none=True)


@dataclass(frozen=True, eq=False)
class ImageAttack(AttackWork):
    """An attack on images.

    images: (rows, channels, height, width). labels, targets: int64 (rows,), or (rows, height, width), where below 0
    does not count.
    """

    model: ImageNetwork
    limits: Attacks
    perturbation: Perturbation
    images: Tensor
    labels: Tensor | None
    targets: Tensor | None
    rendering: Rendering | None = None

    @property
    def rows(self) -> int:
        return len(self.images)

    @property
    def cost(self) -> AttackCost:
        perturbation, classes = self.perturbation, len(self.model.classes)
        most = perturbation.attack.most(perturbation.ball.norm, classes, self.targets is not None)
        return AttackCost(most.forward + most.backward, self.model.gmacs(self.images.shape))

    @property
    def parameters(self) -> Mapping[str, Scalar]:
        return self.perturbation.parameters

    @property
    def _words(self) -> Words:
        attack = f"attack {self.perturbation.attack.kind!r}"
        return Words(attack, IMAGES, "image", "model", "ask for fewer steps, restarts or queries", FEWER)

    def check(self) -> None:
        """InputError if the attack does not go with its images, or takes more than is allowed."""
        attack = self.perturbation.attack
        checks.check_ball(attack.kind, attack.norms, self.perturbation.ball, self.images)
        checks.check_classes(attack.kind, len(self.model.classes), attack.fewest_classes(self.targets is not None))
        check_budget(self.limits, self.rows, self.cost, self._words)

    def compute(self, stopped: Stopped) -> Attacked:
        check_wanted = check_of(stopped, self.limits.seconds, too_late(self.limits, self._words))
        check_wanted()
        model, perturbation = self.model, self.perturbation
        images = self.images.to(model.device)
        attack = perturbation.attack
        random = () if attack.for_random_models else model.randomised

        def guarded(network: Model) -> Model:
            def ask(points: Tensor) -> Tensor:
                for _ in range(math.ceil(len(points) / self.rows)):  # as many passes as these points are of all images
                    check_wanted()
                return network(points)

            return ask

        before = model.logits(images)
        labels = self.truth(before)
        targets = None if self.targets is None else self.targets.to(model.device)
        search = attack.begin(guarded(model.network), images, labels, perturbation.ball, targets)
        ready = search.model
        if not (random or attack.for_random_models):  # a trace would hold fast to what is random
            ready = guarded(prepared(model.network, images[:2]))
        attack_prepared(attack, search, ready, perturbation.seed)
        result = search.result()
        after = model.logits(result.adversarials)
        rounded = model.logits(in_8_bits(result.adversarials))
        minimum = result.minimum_distances.cpu()
        outputs = {
            "adversarials": result.adversarials.cpu().numpy(),
            **self.predictions(before, labels, targets, after, rounded),
            "successful": result.successful.cpu().numpy(),
            "distance": result.distances.float().cpu().numpy(),
            "minimum_distance": torch.where(minimum.isfinite(), minimum, -1.0).float().numpy(),
            "queries": result.queries.cpu().numpy(),
            "gradients": result.gradients.cpu().numpy(),
        }
        warnings = tuple(dict.fromkeys((*random, *result.warnings)))
        return Attacked({name: outputs[name] for name in self.outputs}, warnings)

    def truth(self, before: Tensor) -> Tensor:
        """The labels that are attacked, on the device of the model. before: its logits of the images."""
        return before.argmax(1) if self.labels is None else self.labels.to(before.device)

    @abstractmethod
    def predictions(
        self, before: Tensor, labels: Tensor, targets: Tensor | None, after: Tensor, rounded: Tensor
    ) -> Answer:
        """The outputs about predictions.

        before, after, rounded: logits of the images, of the adversarials, and of these rounded to 8 bits.
        """


def check_tensors(model: ImageNetwork, inputs: Mapping[str, Array], optional: Sequence[TensorSpec]) -> dict[str, Array]:
    """The inputs. InputError unless they are images as the model takes them, and nothing else but `optional` ones."""
    fitting = fitted(inputs, model.inputs, optional)
    check_pixels(fitting[IMAGES])
    return fitting


def picture(form: Form, images: Array) -> Rendering | None:
    """The adversarial image, where the request accepts a PNG. InputError if there is not one such image."""
    if not form.png:
        return None
    if len(images) != 1 or images.shape[1] not in MODES:
        raise InputError("a PNG is the answer for one grey or colour image; ask for application/json")
    return Rendering(PNG_MEDIA, _adversarial)


def in_8_bits(images: Tensor) -> Tensor:
    """The pixels as a PNG holds them, in [0, 1] again."""
    return (images * 255).round() / 255


def _adversarial(answer: Answer) -> bytes:
    return to_png(answer["adversarials"][0])


def not_a_class(value: int, classes: int) -> str:
    """The end of a sentence about a number that is no class."""
    return f"must be a class, from 0 to {classes - 1}; it is {value}"


def _attack(parameters: Mapping[str, Scalar]) -> Attack:
    attack = ATTACKS[choice("attack", parameters.get("attack", DEFAULT), ATTACKS)]
    check_parameters(parameters, (*COMMON, *(name for name in attack.model_fields if name != "kind")))
    options: dict[str, Any] = {name: value for name, value in parameters.items() if name not in COMMON}
    return validate(attack, options, "parameters")


def _ball(parameters: Mapping[str, Scalar]) -> Ball:
    norms: tuple[Norm, ...] = get_args(Norm)
    norm, epsilon = choice("norm", parameters.get("norm", DEFAULT_NORM), norms), parameters.get("epsilon")
    if epsilon is None:
        raise InputError("parameter 'epsilon' is missing", "in the units of the pixels: 8 of 255 is 0.0314")
    if isinstance(epsilon, bool | str):
        raise FieldError("parameter 'epsilon'", "be a number", epsilon, "8/255 is 0.0314")
    try:
        radius = float(epsilon)
    except OverflowError:
        radius = math.inf
    return Ball(next(known for known in norms if known == norm), radius)
