"""What a spec of the study says."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from jobs.common.data.sounds import DataParams
from jobs.common.models.cards import PublishingParams
from jobs.common.params import ONCE, Name, StudyParams
from jobs.sonification.network_params import NetworkParams, TrainedNetwork
from jobs.sonification.optimisation.ascent import AscentParams
from jobs.sonification.optimisation.objectives import (
    AnyObjective,
    ChannelObjective,
    ClassObjective,
    DirectionObjective,
    LayerObjective,
)

Judge = Literal["pitch", "speaker", "moonshine", "sphinx", "quality"]
EVERY: tuple[Judge, ...] = ("pitch", "speaker", "moonshine", "sphinx", "quality")
NOISE: Literal["noise"] = "noise"
OTHER_VOICE: Literal["other_voice"] = "other_voice"


class SonificationParams(StudyParams):
    """Sounds for features of some layers."""

    objective: AnyObjective = Field(ChannelObjective(), description="what the sounds are to excite")
    layers: Annotated[tuple[str, ...], ONCE] = Field(
        (), description="layers by name; none: all but the first and the last (of class: the last)"
    )
    channels: Annotated[tuple[int, ...], ONCE] = Field(
        (), description="channels by number; none: `count` of each layer, drawn"
    )
    count: int | None = Field(8, ge=1, description="channels of each layer, drawn with the run's seed; none: all")
    classes: Annotated[tuple[str, ...], ONCE] = Field(
        (), description="classes by name, of class and direction; none: all"
    )
    clip: int | None = Field(None, ge=0, description="number of the test clip that sounds begin with; none: with noise")
    seconds: float = Field(
        1.0, gt=0, le=60, description="length of a sound; of one that begins with a clip, the clip's"
    )
    high_pass: float = Field(50.0, ge=0, le=2000, description="hertz below which a sound has nothing")
    batch: int = Field(
        16,
        ge=1,
        le=4096,
        description="features of a layer in a cell, at most, optimised at once; results depend on which are together",
    )
    ascent: AscentParams = Field(AscentParams(), description="how they are optimised")

    @property
    def by_class(self) -> bool:
        """Whether a feature is a class."""
        return isinstance(self.objective, ClassObjective | DirectionObjective)

    @property
    def by_channel(self) -> bool:
        """Whether a feature is a channel; else it is a class or a whole layer."""
        return not self.by_class and not isinstance(self.objective, LayerObjective)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.channels and not self.by_channel:
            raise ValueError(f"channels: an objective of kind {self.objective.kind} has none")
        if self.classes and not self.by_class:
            raise ValueError(f"classes: an objective of kind {self.objective.kind} has none")
        if self.ascent.regularisation.closeness and self.clip is None:
            raise ValueError("ascent.regularisation.closeness: it is a distance from a clip, and there is none")
        return self


class InversionParams(StudyParams):
    """Sounds that a layer answers to as it does to a clip: what is left of the clip at that depth."""

    layers: Annotated[tuple[str, ...], ONCE] = Field((), description="layers by name; none: all but the last")
    clips: int = Field(4, ge=1, le=1000, description="clips to test that are inverted, the first ones")
    start: Annotated[tuple[Literal["noise", "other_voice"], ...], ONCE] = Field(
        (NOISE,), min_length=1, description="noise, or other_voice: a clip of another voice and class"
    )
    steps: int = Field(300, ge=1, le=100_000, description="gradient steps")
    step_size: float = Field(5e-3, gt=0, le=1, description="of Adam, in units of full scale")
    variation: float = Field(1e-3, ge=0, description="weight of the mean difference between neighbouring samples")


class ProbeParams(StudyParams):
    """What a linear map reads out of a layer: ridge regression on means over time."""

    targets: Annotated[tuple[str, ...], ONCE] = Field(
        (), description="class, fundamental (measured, hertz), or a factor of the data, such as voice; none: all"
    )
    penalties: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (1e-4, 1e-3, 0.01, 0.1, 1.0, 10.0, 100.0, 1000.0),
        min_length=1,
        description="of squared weights, to choose from: the one with which the clips to train, each left out in turn, "
        "are read best; a small one reads out what is faint, too",
    )


class JudgementParams(StudyParams):
    """Who listens to the sounds."""

    judges: Annotated[tuple[Judge, ...], ONCE] = Field(
        EVERY,
        min_length=1,
        description="pitch (CREPE), speaker (Resemblyzer: how like the voice of the nearest clip), moonshine and "
        "sphinx (words), quality (DNSMOS); one that is not there is named in a warning",
    )


class Params(PublishingParams):
    """A network, sounds that it knows, and what is to be made audible of it."""

    data: DataParams = Field(DataParams(), description="the sounds")
    network: NetworkParams = Field(TrainedNetwork(), description="the network that is listened to")
    sonifications: dict[Name, SonificationParams] = Field(
        {"channels": SonificationParams()}, description="sounds that excite features, by a name of yours"
    )
    examples: int = Field(3, ge=0, le=100, description="real clips that excite a sonified channel most, of each")
    judgement: JudgementParams | None = Field(None, description="who listens to the sounds; none: nobody")
    phonemes: bool = Field(False, description="whether to say which phoneme each sound is nearest to")
    inversion: InversionParams | None = Field(None, description="what layers keep of clips; none: not asked")
    probes: ProbeParams | None = Field(None, description="what can be read out of layers; none: not asked")

    @property
    def network_name(self) -> str:
        """What a title calls the network."""
        return "the recogniser" if isinstance(self.network, TrainedNetwork) else self.network.name

    @property
    def name_parts(self) -> tuple[str, ...]:
        return (self.data.name, "recogniser") if isinstance(self.network, TrainedNetwork) else ()
