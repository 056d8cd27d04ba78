"""What requests to attack a detector take besides tensors: the class to hide, and how the patch is made and drawn."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from jobs.invisibility_cloak.patch.objectives import AnyObjective, HingeObjective, MaximumObjective, TargetedObjective
from jobs.invisibility_cloak.patch.rendering_params import RenderingParams
from jobs.invisibility_cloak.patch.search_params import SearchParams
from service.errors import InputError
from service.params import Section
from service.planning.validation import validate
from serving.http.protocol import Scalar, check_parameters
from serving.kinds.attack_options import MOST_SEED, Json, scalars_of
from serving.kinds.base import choice
from serving.kinds.detection.options import DetectionOptions

USUAL_CLASS = "person"
PATCH, STORED = "patch", "stored_patch"
LONGEST_PATCH = 320  # pixels
SHARED = ("attack", "class", "scale")
STILL: Mapping[str, Any] = {
    "contrast": (1.0, 1.0),
    "brightness": 0.0,
    "wrinkle": 0.0,
    "perspective": 0.0,
    "rotation": 0.0,
    "lift": 0.0,
}
"""a patch that is optimised for the images as they are: nothing of how it is drawn is random"""


class PatchOptions(Section):
    """A patch that is optimised on the images that are sent, which they all share."""

    iterations: int = Field(100, ge=1, le=100_000, description="gradient steps")
    learning_rate: float = Field(0.1, gt=0, le=10, description="of Adam, in units of the range of colours")
    height: int = Field(100, ge=4, le=LONGEST_PATCH, description="of the patch, in pixels of its own")
    width: int = Field(60, ge=4, le=LONGEST_PATCH, description="of the patch, in pixels of its own")
    objective: Literal["hinge", "maximum", "targeted"] = Field(
        "hinge",
        description="hinge: every place of the detector is to see nothing (Wu et al. 2020); maximum: the surest box "
        "of an image is to be less sure; targeted: the class is to be taken for another",
    )
    toward: str = Field("", max_length=256, description="name of the other class, of the objective targeted")
    transformed: bool = Field(
        False, description="the patch is to survive other colours, wrinkles, perspective and rotation, drawn anew"
    )
    seed: int = Field(0, ge=0, le=MOST_SEED, description="of the noise that it begins with, and of all that is random")


class StoredOptions(Section):
    """A patch of the model store, or one that is sent as the tensor "patch", is drawn as it is."""

    patch: str = Field("", max_length=100, description="NAME or NAME/VERSION in the model store; none: the tensor")


OPTIONS: Mapping[str, type[PatchOptions | StoredOptions]] = {PATCH: PatchOptions, STORED: StoredOptions}
SHARED_SCHEMAS: Mapping[str, Json] = {
    "class": {"type": "string", "description": "name of what is to be hidden; none: person, or the first class"},
    "scale": {
        "type": "number",
        "exclusiveMinimum": 0,
        "maximum": 2,
        "description": "width of the patch, in diagonals of the box; none: 0.22, or what the card of the patch says",
    },
}
DESCRIBED: Mapping[str, Json] = {
    name: {
        "norms": [],
        "description": " ".join((model.__doc__ or "").split()),
        "parameters": {**SHARED_SCHEMAS, **scalars_of(model)},
    }
    for name, model in OPTIONS.items()
}


@dataclass(frozen=True)
class AttackOptions:
    """The parameters of a request that fit the detector.

    label: of the class to hide. toward: of the one that it is to be taken for; None: any. scale: None: the usual one.
    """

    own: PatchOptions | StoredOptions
    detection: DetectionOptions
    label: int
    toward: int | None
    scale: float | None
    classes: Sequence[str]

    @classmethod
    def parse(
        cls, parameters: Mapping[str, Scalar], classes: Sequence[str], usual: Mapping[str, Scalar]
    ) -> "AttackOptions":
        """InputError about the first that is unknown or not allowed. usual: defaults of the card, for detection."""
        attack = choice("attack", parameters.get("attack", PATCH), OPTIONS)
        model, detection = OPTIONS[attack], DetectionOptions
        check_parameters(parameters, (*SHARED, *model.model_fields, *detection.model_fields))
        default = USUAL_CLASS if USUAL_CLASS in classes else classes[0]
        hidden = choice("class", parameters.get("class", default), classes)
        own = validate(model, _those_of(model, parameters), "parameters")
        return cls(
            own,
            validate(detection, dict(usual) | _those_of(detection, parameters), "parameters"),
            classes.index(hidden),
            _toward(own, hidden, classes),
            _scale(parameters),
            classes,
        )

    @property
    def parameters(self) -> Mapping[str, Scalar]:
        """All parameters, also those that had their default."""
        attack = PATCH if isinstance(self.own, PatchOptions) else STORED
        shared: dict[str, Scalar] = {"attack": attack, "class": self.classes[self.label]}
        if self.scale is not None:
            shared["scale"] = self.scale
        return shared | self.detection.model_dump() | {name: value for name, value in self.own if value != ""}

    def rendering(self, usual: RenderingParams) -> RenderingParams:
        """How a patch is drawn. usual: what is said of it, but for what the request says."""
        return usual if self.scale is None else usual.model_copy(update={"scale": self.scale})


def rendering_of(options: PatchOptions) -> RenderingParams:
    """How a patch is drawn on all boxes of an image while it is optimised."""
    params = RenderingParams()
    still = {} if options.transformed else STILL
    return params.model_copy(update={"most_in_search": params.most, **still})


def search_of(options: PatchOptions, images: int) -> SearchParams:
    """How a patch is optimised on so many images."""
    objective: AnyObjective = HingeObjective()
    if options.objective == "maximum":
        objective = MaximumObjective()
    elif options.objective == "targeted":
        objective = TargetedObjective(toward=options.toward)
    return SearchParams(
        size=(options.height, options.width),
        iterations=options.iterations,
        batch=images,
        learning_rate=options.learning_rate,
        objective=objective,
    )


def _those_of(model: type[Section], parameters: Mapping[str, Scalar]) -> dict[str, Any]:
    return {name: parameters[name] for name in model.model_fields if name in parameters}


def _toward(own: PatchOptions | StoredOptions, hidden: str, classes: Sequence[str]) -> int | None:
    if isinstance(own, StoredOptions):
        return None
    if (own.objective == "targeted") != bool(own.toward):
        raise InputError("parameter 'toward' names a class for the objective targeted, and goes with no other")
    if not own.toward:
        return None
    if own.toward == hidden:
        raise InputError("parameter 'toward' must be another class than the one that is hidden")
    return classes.index(choice("toward", own.toward, classes, "class"))


class _Scale(Section):
    scale: float = Field(gt=0, le=2)


def _scale(parameters: Mapping[str, Scalar]) -> float | None:
    if "scale" not in parameters:
        return None
    return validate(_Scale, {"scale": parameters["scale"]}, "parameters").scale
