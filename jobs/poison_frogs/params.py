"""What a spec of the study says."""

from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from jobs.common.data.images import DataParams
from jobs.common.models.cards import PublishingParams
from jobs.common.models.network_params import PublishedNetwork, StoredNetwork, TrainedNetwork
from jobs.common.params import ONCE, Name
from jobs.poison_frogs.defences.defence_params import DefenceParams
from jobs.poison_frogs.poisons.recipes import AttackParams, FeatureCollision, RetryParams
from jobs.poison_frogs.targets.benchmark import SetupsParams
from jobs.poison_frogs.targets.selection import BaseParams, PairParams, TargetParams
from jobs.poison_frogs.victims.heads import HeadParams
from jobs.poison_frogs.victims.networks import ScratchParams, VictimParams
from service.errors import FieldError


class Params(PublishingParams):
    """A network, targets and bases, how poisons are made, and who learns from them."""

    data: DataParams = Field(DataParams(), description="the images; targets and bases are of the test split")
    network: Annotated[TrainedNetwork | StoredNetwork | PublishedNetwork, Field(discriminator="kind")] = Field(
        TrainedNetwork(), description="the network that poisons are made for"
    )
    layers: Annotated[tuple[str, ...], ONCE] = Field(
        (), description="layers whose output is a feature; none: before the last linear"
    )
    task: Annotated[tuple[str, ...], ONCE] = Field(
        (), description="classes that the victims learn to tell apart; none: all"
    )
    pairs: tuple[PairParams, ...] = Field((), description="classes of the targets and of their bases")
    setups: SetupsParams | None = Field(
        None, description="trials of a benchmark instead, which say targets and bases; the poisons replace their bases"
    )
    targets: TargetParams = Field(TargetParams(), description="which images are attacked")
    bases: BaseParams = Field(BaseParams(), description="which images become poisons")
    attack: AttackParams = Field(FeatureCollision(), description="how poisons are made of bases")
    surrogates: int = Field(
        0, ge=0, le=100, description="further networks, trained as the first with other seeds, that are crafted against"
    )
    grey_box: bool = Field(False, description="craft against the surrogates alone, not against the network itself")
    retry: RetryParams | None = Field(None, description="try other bases; none: what came out is used")
    poisons: Annotated[tuple[int, ...], ONCE] = Field(
        (1,), min_length=1, max_length=100, description="poisons for a target: for each number the first ones"
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
        """At least 1; ascending from here on."""
        if min(counts) < 1:
            raise FieldError("", "be at least 1 each, as the control without poison is made anyway", counts)
        return tuple(sorted(counts))

    @model_validator(mode="after")
    def _fits(self) -> Self:
        """The parts know each other."""
        self._check_targets()
        self._check_attack()
        self._check_victims()
        return self

    def _check_targets(self) -> None:
        if bool(self.pairs) == (self.setups is not None):
            raise ValueError("pairs: name either pairs of classes or the setups of a benchmark")
        if self.setups is not None:
            self._check_benchmark(self.setups)
        if self.targets.indices:
            counts = {f"pairs.{number}.targets": pair.targets for number, pair in enumerate(self.pairs)}
            for name, count in {"targets.count": self.targets.count, **counts}.items():
                if count is not None:
                    raise FieldError(name, "be left out where targets.indices names the images", count)
        names = [[pair.target, pair.base] for pair in self.pairs]
        for number, pair in enumerate(names):
            if pair[0] == pair[1]:
                raise FieldError(f"pairs.{number}.base", "be another class than that of the targets", pair[1])
            if pair in names[:number]:
                raise FieldError(f"pairs.{number}", "name each pair once", pair)
            if self.task and not set(pair) <= set(self.task):
                raise FieldError(f"pairs.{number}", f"be of the task's classes, {', '.join(self.task)}", pair)
        if len(self.task) == 1:
            raise FieldError("task", "be two classes or more", self.task)
        if "" in self.layers:
            raise FieldError("layers", "be names of layers", self.layers)

    def _check_benchmark(self, setups: SetupsParams) -> None:
        for name in ("targets", "bases", "poisons", "task", "retry"):
            if (value := getattr(self, name)) != type(self).model_fields[name].default:
                raise FieldError(name, "be left out, as the setups of a benchmark say what is poisoned", value)
        if isinstance(self.attack, FeatureCollision) and self.attack.quantise == "none":
            raise FieldError("attack.quantise", "be round or truncate: poisons of setups have 256 shades", "none")
        # downwards a level more is lost, where a sum ends just below a whole one
        truncated = isinstance(self.attack, FeatureCollision) and self.attack.quantise == "truncate"
        if self.attack.epsilon is None or 255 * self.attack.epsilon > setups.levels - truncated:
            why = "setups.levels / 255" if not truncated else "(setups.levels - 1) / 255 where poisons are truncated"
            most = f"be at most {(setups.levels - truncated) / 255:.4g}, which is {why}"
            raise FieldError("attack.epsilon", most, self.attack.epsilon)

    def _check_attack(self) -> None:
        if isinstance(self.attack, FeatureCollision):
            if self.surrogates:
                raise FieldError(
                    "surrogates", f"be 0, as {self.attack.kind} crafts against one network", self.surrogates
                )
            if self.export and self.attack.quantise == "none":
                raise FieldError("attack.quantise", "be round or truncate for export", "none")
            if self.attack.stop_ratio is not None and self.attack.stop_ratio >= 1:
                requirement = "be below 1: from there a poison is no nearer than training images are"
                raise FieldError("attack.stop_ratio", requirement, self.attack.stop_ratio)
        elif self.retry is not None:
            raise FieldError("retry", "be empty, as poisons that are made together have no next base", self.retry)
        if self.retry is not None and self.bases.rule == "single":
            raise FieldError("retry", "be empty, as with a single base there is no other to try", self.retry)
        if self.surrogates and self.network.kind != "train":
            requirement = "be 0 where the network is not trained here: surrogates are trained as it is"
            raise FieldError("surrogates", requirement, self.surrogates)
        if self.grey_box and not self.surrogates:
            raise FieldError("grey_box", "be false where there are no surrogates to craft against", self.grey_box)

    def _check_victims(self) -> None:
        for name, victim in self.victims.items():
            if isinstance(victim, ScratchParams) and victim.classifier is None and self.network.kind != "train":
                raise FieldError(f"victims.{name}.classifier", "be given, as the network is not trained here", None)
            if isinstance(victim, HeadParams) and victim.start == "warm" and victim.solver == "lbfgs":
                requirement = "be cold: L-BFGS converges to the same head from anywhere"
                raise FieldError(f"victims.{name}.start", requirement, victim.start)
            if isinstance(victim, HeadParams) and self.layers:
                requirement = f"be empty, as {name} learns from what is before the last linear layer"
                raise FieldError("layers", requirement, self.layers)

    @property
    def complete_victims(self) -> dict[str, VictimParams]:
        """The victims; a fresh network for which no architecture is named has that of the attacked one."""
        attacked = self.network.classifier if isinstance(self.network, TrainedNetwork) else None
        return {
            name: victim.model_copy(update={"classifier": victim.classifier or attacked})
            if isinstance(victim, ScratchParams)
            else victim
            for name, victim in self.victims.items()
        }

    @property
    def name_parts(self) -> tuple[str, ...]:
        if not isinstance(self.network, TrainedNetwork):
            return ()
        return self.data.name, self.network.classifier.name, "frogs"
