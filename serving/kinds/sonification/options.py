"""What a request to sonify takes besides tensors: which feature of the network, and how its sound is optimised.

objective          "channel" (default), "neuron", "direction", "layer", or "class", the default where `class` is given
layer, channel     by name and number; `class` by name: what the objective is asked of
parameterisation   "waveform" (default), "fourier" or "log_mel"
seconds, seed, …   those of SoundOptions, and of the sections of the study's own parameters, which are named there
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from pydantic import BaseModel, Field

from jobs.common.audio.networks.base import OUTPUT
from jobs.common.audio.transformations import TransformationParams
from jobs.sonification.optimisation.ascent import AscentParams
from jobs.sonification.optimisation.objectives import (
    ChannelObjective,
    ClassObjective,
    DirectionObjective,
    LayerObjective,
    NeuronObjective,
    Objective,
)
from jobs.sonification.optimisation.parameterisations import Fourier, LogMels, Parameterisation, Waveform
from jobs.sonification.optimisation.regularisation import RegularisationParams
from service.errors import FieldError, InputError, nearest, shown
from service.params import Section
from service.planning.validation import validate
from serving.http.protocol import Scalar, check_parameters
from serving.http.settings import Sonification
from serving.kinds.attack_options import MOST_SEED, Json, scalars_of
from serving.kinds.base import choice

OBJECTIVES: Mapping[str, type[Objective]] = {
    "channel": ChannelObjective,
    "neuron": NeuronObjective,
    "direction": DirectionObjective,
    "layer": LayerObjective,
    "class": ClassObjective,
}
FEATURES = {  # by the objective: the parameters that say what it is asked of
    "channel": ("layer", "channel"),
    "neuron": ("layer", "channel"),
    "direction": ("layer",),
    "layer": ("layer",),
    "class": ("class",),
}
INPUTS = {"direction": ("direction",)}  # by the objective: the tensors that it needs
PARAMETERISATIONS: Mapping[str, type[Parameterisation]] = {"waveform": Waveform, "fourier": Fourier, "log_mel": LogMels}
CHOICES = ("objective", "layer", "channel", "class", "parameterisation")


class SoundOptions(Section):
    """What a sound is, and what it begins with."""

    seconds: float = Field(
        1.0, gt=0, le=60, description="length of a sound; of one that begins with a clip, the clip's"
    )
    high_pass: float = Field(50.0, ge=0, le=2000, description="hertz below which a sound has nothing")
    seed: int = Field(0, ge=0, le=MOST_SEED, description="of the noise that it begins with, and of random changes")


COMMON: tuple[type[BaseModel], ...] = (SoundOptions, AscentParams, TransformationParams, RegularisationParams)


@dataclass(frozen=True)
class Options:
    """The parameters of a request that fit the network.

    number: of the channel or the class; else 0. parameters: all of them, also those that had their default.
    """

    objective: Objective
    layer: str
    number: int
    sound: SoundOptions
    ascent: AscentParams
    parameters: Mapping[str, Scalar]

    @classmethod
    def parse(
        cls, parameters: Mapping[str, Scalar], channels: Mapping[str, int], classes: Sequence[str], with_clip: bool
    ) -> "Options":
        """InputError about the first that is unknown or not allowed.

        channels: how many each layer has. with_clip: the sound begins with one.
        """
        usual = "class" if "class" in parameters else "channel"
        kind = choice("objective", parameters.get("objective", usual), OBJECTIVES)
        form = choice("parameterisation", parameters.get("parameterisation", "waveform"), PARAMETERISATIONS)
        models = (OBJECTIVES[kind], PARAMETERISATIONS[form], *COMMON)
        check_parameters(parameters, [*CHOICES, *(name for model in models for name in names_of(model))])
        if with_clip and "seconds" in parameters:
            raise InputError("parameter 'seconds' is of a sound that begins with noise: a clip has its own length")
        feature = _feature(kind, parameters, channels, classes)
        objective, parameterisation, sound, ascent, transformations, regularisation = (
            validate(model, {name: parameters[name] for name in names_of(model) if name in parameters}, "parameters")
            for model in models
        )
        assert isinstance(objective, Objective) and isinstance(ascent, AscentParams)
        assert isinstance(sound, SoundOptions) and isinstance(regularisation, RegularisationParams)
        if regularisation.closeness and not with_clip:
            raise InputError("parameter 'closeness' is about the distance from a clip, and there is none")
        parts = {
            "parameterisation": parameterisation,
            "transformations": transformations,
            "regularisation": regularisation,
        }
        said: dict[str, Scalar] = {"objective": kind, **_named(feature, classes), "parameterisation": form}
        for section in (objective, parameterisation, sound, ascent, transformations, regularisation):
            said |= {name: getattr(section, name) for name in names_of(type(section))}
        if with_clip:
            del said["seconds"]
        whole = validate(AscentParams, ascent.model_copy(update=parts).model_dump(mode="json"), "parameters")
        layer, number = feature.get("layer", OUTPUT), feature.get("channel", feature.get("class", 0))
        return cls(objective, str(layer), int(number), sound, whole, said)


def described(channels: Mapping[str, int], limits: Sonification) -> Json:
    """For the metadata of a model: its layers with their channels, and the JSON schemas of the parameters.

    channels: how many each layer has, by depth.
    """
    common = {name: schema for model in COMMON for name, schema in scalars_of(model).items()}
    for name, most in (("seconds", limits.sound_seconds), ("steps", limits.steps)):
        common[name] = {**common[name], "maximum": min(common[name]["maximum"], most)}
    return {
        "layers": dict(channels),
        "objectives": {
            name: {"takes": list(FEATURES[name]), "inputs": list(INPUTS.get(name, ())), **_described(model)}
            for name, model in OBJECTIVES.items()
        },
        "parameterisations": {name: _described(model) for name, model in PARAMETERISATIONS.items()},
        "parameters": common,
    }


def _described(model: type[BaseModel]) -> Json:
    options = {name: schema for name, schema in scalars_of(model).items() if name != "kind"}
    return {"description": model.model_fields["kind"].description or "", "parameters": options}


@cache
def names_of(model: type[BaseModel]) -> tuple[str, ...]:
    """The fields of a section that are parameters of a request."""
    return tuple(name for name in scalars_of(model) if name != "kind")


def _feature(
    kind: str, parameters: Mapping[str, Scalar], channels: Mapping[str, int], classes: Sequence[str]
) -> dict[str, str | int]:
    """What the objective is asked of: a layer by name, a channel or a class by number."""
    asked = FEATURES[kind]
    for name in ("layer", "channel", "class"):
        if name in parameters and name not in asked:
            raise InputError(f"parameter {name!r} is not for the objective {kind!r}, which takes {' and '.join(asked)}")
        if name in asked and name not in parameters:
            raise InputError(f"parameter {name!r} is missing", f"the objective {kind!r} takes {' and '.join(asked)}")
    feature: dict[str, str | int] = {}
    if "class" in asked:
        feature["class"] = _class(str(parameters["class"]), classes)
    else:
        feature["layer"] = _layer(parameters["layer"], channels)
    if "channel" in asked:
        feature["channel"] = _channel(parameters["channel"], str(feature["layer"]), channels)
    return feature


def _layer(name: Scalar, channels: Mapping[str, int]) -> str:
    if name not in channels:
        raise InputError(
            f"parameter 'layer': the network has no layer {shown(str(name))}", nearest(str(name), channels)
        )
    return str(name)


def _channel(number: Scalar, layer: str, channels: Mapping[str, int]) -> int:
    most = channels[layer] - 1
    if type(number) is int and 0 <= number <= most:
        return number
    near = f"the nearest is {min(max(number, 0), most)}" if type(number) is int else None
    raise FieldError("parameter 'channel'", f"be a whole number from 0 to {most}, those of {layer!r}", number, near)


def _class(name: str, classes: Sequence[str]) -> int:
    if name not in classes:
        raise InputError(f"parameter 'class': the network has no class {shown(name)}", nearest(name, classes))
    return classes.index(name)


def _named(feature: Mapping[str, str | int], classes: Sequence[str]) -> dict[str, Scalar]:
    """The feature as a request names it."""
    return {name: classes[int(value)] if name == "class" else value for name, value in feature.items()}
