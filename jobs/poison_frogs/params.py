"""What a spec of the study says."""

from typing import Annotated, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from jobs.common.data.images import DataParams
from jobs.common.models.cards import PublishingParams
from jobs.common.models.network_params import PublishedNetwork, StoredNetwork, TrainedNetwork
from jobs.poison_frogs.defences.filters import DefenceParams
from jobs.poison_frogs.poisons.recipes import AttackParams, Paper, Recipe, RetryParams
from jobs.poison_frogs.targets.benchmark import SetupsParams
from jobs.poison_frogs.targets.selection import BaseParams, PairParams, TargetParams
from jobs.poison_frogs.victims.heads import HeadParams
from jobs.poison_frogs.victims.networks import ScratchParams, VictimParams

Name = Annotated[str, StringConstraints(pattern="^[a-z][a-z0-9_]{0,31}$")]


class Params(PublishingParams):
    """A network, targets and bases, how poisons are made, and who learns from them."""

    data: DataParams = Field(DataParams(), description="the images; targets and bases are of the test split")
    network: Annotated[TrainedNetwork | StoredNetwork | PublishedNetwork, Field(discriminator="kind")] = Field(
        TrainedNetwork(), description="the network that poisons are made for"
    )
    layers: tuple[str, ...] = Field((), description="layers whose output is a feature; none: before the last linear")
    task: tuple[str, ...] = Field((), description="classes that the victims learn to tell apart; none: all")
    pairs: tuple[PairParams, ...] = Field((), description="classes of the targets and of their bases")
    setups: SetupsParams | None = Field(
        None, description="trials of a benchmark instead, which say targets and bases; the poisons replace their bases"
    )
    targets: TargetParams = Field(TargetParams(), description="which images are attacked")
    bases: BaseParams = Field(BaseParams(), description="which images become poisons")
    attack: AttackParams = Field(Paper(), description="how poisons are made of bases")
    surrogates: int = Field(
        0, ge=0, le=100, description="further networks, trained as the first with other seeds, that are crafted against"
    )
    grey_box: bool = Field(False, description="craft against the surrogates alone, not against the network itself")
    retry: RetryParams | None = Field(None, description="try other bases; none: what came out is used")
    poisons: tuple[int, ...] = Field(
        (1,), min_length=1, max_length=100, description="poisons for a target: of each number its first so many"
    )
    victims: dict[Name, VictimParams] = Field(
        {"head": HeadParams()}, min_length=1, description="who learns from them, by names of your choice"
    )
    defences: dict[Name, DefenceParams] = Field(
        {}, description="filters of the training set, by names of your choice; each before every kind of victim"
    )
    repeats: int = Field(1, ge=1, le=1000, description="victims of each kind, with seeds of their own")
    batch: int = Field(64, ge=1, le=10_000, description="poisons that are crafted at once, at most")
    export: bool = Field(False, description="the poisons of each target as PNG and JSON")
    show: int = Field(6, ge=0, le=16, description="poisons in the picture; 0: no picture")

    @field_validator("poisons")
    @classmethod
    def _counts(cls, counts: tuple[int, ...]) -> tuple[int, ...]:
        """At least 1 and distinct; ascending from here on."""
        if min(counts) < 1:
            raise ValueError(f"{min(counts)} is not allowed, at least 1 is: the control without poison is made anyway")
        if len(set(counts)) < len(counts):
            raise ValueError(f"{list(counts)} names a number twice")
        return tuple(sorted(counts))

    @model_validator(mode="after")
    def _fits(self) -> Self:
        """The parts know each other."""
        if bool(self.pairs) == (self.setups is not None):
            raise ValueError("pairs: name either pairs of classes or the setups of a benchmark")
        if self.setups is not None:
            self._fits_benchmark(self.setups)
        if len({(pair.target, pair.base) for pair in self.pairs}) < len(self.pairs):
            raise ValueError("pairs: a pair is named twice")
        for pair in self.pairs:
            if pair.target == pair.base:
                raise ValueError(f"pairs: target and base are both {pair.target!r}, there is nothing to attack")
            if self.task and not {pair.target, pair.base} <= set(self.task):
                raise ValueError(f"pairs: {pair.target!r} and {pair.base!r} are not both of the task {list(self.task)}")
        if self.task and len(set(self.task)) < max(2, len(self.task)):
            raise ValueError(f"task: {list(self.task)} is not two classes or more, each once")
        if isinstance(self.attack, Recipe):
            if self.surrogates or self.layers and self.grey_box:
                raise ValueError(f"surrogates: {self.attack.kind} crafts against one network; polytope takes several")
            if self.export and self.attack.quantise == "none":
                raise ValueError("export: needs quantised poisons, and attack.quantise is none")
            if self.attack.stop_ratio is not None and self.attack.stop_ratio >= 1:
                raise ValueError("attack.stop_ratio: at 1 and above a poison is no nearer than training images are")
        elif self.retry is not None:
            raise ValueError("retry: poisons that are made together have no next base")
        if self.retry is not None and self.bases.rule == "single":
            raise ValueError("retry: with a single base there is no other to try")
        if self.surrogates and self.network.kind != "train":
            raise ValueError("surrogates: they are trained as the network is, so it has to be trained here")
        if self.grey_box and not self.surrogates:
            raise ValueError("grey_box: there are no surrogates to craft against")
        for name, victim in self.victims.items():
            if isinstance(victim, ScratchParams) and victim.classifier is None and self.network.kind != "train":
                raise ValueError(f"victims.{name}.classifier: needed, as the network is not trained here")
            if isinstance(victim, HeadParams) and victim.start == "warm" and victim.solver == "lbfgs":
                raise ValueError(f"victims.{name}: L-BFGS converges to the same head from anywhere; start cold")
        if self.layers and any(isinstance(victim, HeadParams) for victim in self.victims.values()):
            raise ValueError("layers: a head learns from what is before the last linear layer; name no layers")
        if "" in self.layers or len(set(self.layers)) < len(self.layers):
            raise ValueError(f"layers: {list(self.layers)} are not names of layers, each once")
        return self

    def _fits_benchmark(self, setups: SetupsParams) -> None:
        for name in ("targets", "bases", "poisons", "task", "retry"):
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name}: the setups of a benchmark say targets, bases and how many poisons there are")
        if isinstance(self.attack, Recipe) and self.attack.quantise == "none":
            raise ValueError("setups: poisons are checked in 256 shades, and attack.quantise is none")
        if self.attack.epsilon is None or 255 * self.attack.epsilon > setups.levels:
            raise ValueError(
                f"attack.epsilon: {self.attack.epsilon} is not allowed, up to setups.levels / 255 = "
                f"{setups.levels / 255:.4g} is"
            )

    @property
    def name_parts(self) -> tuple[str, ...]:
        if not isinstance(self.network, TrainedNetwork):
            return ()
        return self.data.name, self.network.classifier.name, "frogs"
