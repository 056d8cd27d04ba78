"""What a spec of the study says."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from jobs.common.audio.fingerprints.fingerprint import FingerprintParams
from jobs.common.data.music import MusicParams
from jobs.common.models.cards import PublishingParams
from jobs.common.params import ONCE, Name, StudyParams
from jobs.copyright_attack.attack.objectives import OverlapObjective
from jobs.copyright_attack.attack.queries import QueryParams
from jobs.copyright_attack.attack.search import AttackParams
from jobs.copyright_attack.defences.params import DefenceParams
from jobs.copyright_attack.identification.params import IdentificationParams
from jobs.copyright_attack.judges.params import JudgeName, JudgesParams
from service.errors import FieldError, nearest

PEAKS = "peaks"
TAKEN, TAKEN_BEGINNINGS = ("original", "universal"), ("noise_as_", "queries_")
"""names of attacks under which something else is kept"""


class NamedAttack(AttackParams):
    """An attack on some of the fingerprints, at several sizes of its bound."""

    fingerprints: Annotated[tuple[Name, ...], ONCE] = Field(
        (), description="names of those that are attacked, all together; none: all that the spec has"
    )
    epsilons: Annotated[tuple[float, ...], ONCE] = Field(
        (0.05, 0.1),
        min_length=1,
        max_length=20,
        description="sizes of the bound: of linf and lp in units of full scale, of masking in units of the threshold",
    )

    @model_validator(mode="after")
    def _sizes(self) -> Self:
        for epsilon in self.epsilons:
            if not 0 < epsilon <= 1000:
                raise FieldError("epsilons", "be above 0 and at most 1000", epsilon)
        return self


class UniversalParams(StudyParams):
    """One change for all songs, made on songs that are not enrolled."""

    attack: NamedAttack = Field(
        NamedAttack(objective=OverlapObjective()), description="how it is made; not with remix, nor the bound masking"
    )


class QueriesParams(QueryParams):
    """Attacks that only ask a judge."""

    judges: Annotated[tuple[JudgeName, ...], ONCE] = Field(
        ("wang",), min_length=1, description="who is asked; a change that fools one is shown to all"
    )
    songs: int = Field(4, ge=1, description="songs that are attacked, the first ones")


class RatioParams(StudyParams):
    """How much more noise than attack a judge bears: for each song the norms at which it is lost are looked for."""

    attack: Name = Field("ring", description="name of the attack whose change is scaled")
    epsilon: float | None = Field(None, gt=0, description="size of its bound; none: the largest of the attack's")
    tolerance: float = Field(1.0, gt=0, le=12, description="decibels to which a norm is found")
    loudest: float = Field(
        25.0, ge=0, le=60, description="decibels above the sound beyond which nothing is tried: a song is then not lost"
    )
    faintest: float = Field(-40.0, ge=-120, lt=0, description="decibels relative to the sound to begin with")


class Params(PublishingParams):
    """Songs, a fingerprint of them, attacks on it, and judges that know nothing of either."""

    data: MusicParams = Field(MusicParams(), description="the songs")
    seconds: float = Field(12.0, gt=0, le=600, description="length of the excerpt of each song that is changed")
    songs: int | None = Field(None, ge=1, description="enrolled songs that are attacked, the first ones; none: all")
    loudness: float = Field(
        0.075, gt=0, le=0.5, description="root mean square of an excerpt, in units of full scale, unless it would clip"
    )
    fingerprints: dict[Name, FingerprintParams] = Field(
        {PEAKS: FingerprintParams()}, min_length=1, description="what is attacked, by a name of yours"
    )
    attacks: dict[Name, NamedAttack] = Field(
        {"ring": NamedAttack()}, min_length=1, description="how it is attacked, by a name of yours"
    )
    batch: int = Field(4, ge=1, le=4096, description="songs that are attacked together, a cell; results depend on it")
    judges: JudgesParams = Field(JudgesParams(), description="who says which song it is")
    encodings: Annotated[tuple[int, ...], ONCE] = Field(
        (128, 64), max_length=20, description="kbit/s of MP3 files that attacked sounds go through, each for itself"
    )
    ratio: RatioParams | None = Field(
        None, description="how much more noise than attack a judge bears; none: not asked"
    )
    universal: UniversalParams | None = Field(None, description="one change for all songs; none: not made")
    queries: QueriesParams | None = Field(None, description="attacks that only ask; none: not made")
    identification: IdentificationParams | None = Field(
        None, description="how judges identify excerpts that nobody attacks; none: not asked"
    )
    defences: DefenceParams | None = Field(None, description="judges with defences beside those without; none: none")
    database_false_alarms: float = Field(
        0.05,
        gt=0,
        lt=1,
        description="share of excerpts of songs that are not enrolled that the saved database may take for one: needs "
        "1 / share - 1 of them at least, or it is saved without a calibrated threshold",
    )
    quality: bool = Field(
        False, description="whether DNSMOS says how clean sounds are; its weights come by `make data`"
    )
    examples: int = Field(1, ge=0, le=100, description="songs whose sounds and spectrograms the report has")

    @property
    def name_parts(self) -> tuple[str, ...]:
        return (self.data.name, "database")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name in self.attacks:
            if name in TAKEN or name.startswith(TAKEN_BEGINNINGS):
                requirement = (
                    f"be names other than {', '.join(TAKEN)}, and not begin with {' or '.join(TAKEN_BEGINNINGS)}"
                )
                raise FieldError("attacks", requirement, name)
        for name, attack in self._every_attack().items():
            for each in attack.fingerprints:
                if each not in self.fingerprints:
                    known = sorted(self.fingerprints)
                    raise FieldError(f"{name}.fingerprints", f"be of {', '.join(known)}", each, nearest(each, known))
        if self.ratio is not None and self.ratio.attack not in self.attacks:
            raise FieldError("ratio.attack", f"be of {', '.join(self.attacks)}, the attacks", self.ratio.attack)
        if self.ratio is not None and self.ratio.epsilon is not None:
            sizes = self.attacks[self.ratio.attack].epsilons
            if self.ratio.epsilon not in sizes:
                shown = ", ".join(f"{size:g}" for size in sizes)
                raise FieldError("ratio.epsilon", f"be of {shown}, the sizes of that attack", self.ratio.epsilon)
        for rate in self.encodings:
            if not 8 <= rate <= 320:
                raise FieldError("encodings", "be from 8 to 320 kbit/s", rate)
        if self.universal is not None:
            if self.universal.attack.objective.kind == "remix":
                raise FieldError("universal.attack.objective", "be overlap or ring", "remix")
            if self.universal.attack.bound.kind == "masking":
                raise FieldError("universal.attack.bound", "be linf or lp", "masking")
            if self.universal.attack.transformations is not None:
                requirement = "be left out, as one change for all songs is made on the sounds as they are"
                raise FieldError("universal.attack.transformations", requirement, "given")
        for judge in () if self.queries is None else self.queries.judges:
            if judge not in self.judges.names:
                raise FieldError("queries.judges", f"be of judges.names, {', '.join(self.judges.names)}", judge)
        return self

    def _every_attack(self) -> dict[str, NamedAttack]:
        every = {f"attacks.{name}": attack for name, attack in self.attacks.items()}
        if self.universal is not None:
            every["universal.attack"] = self.universal.attack
        return every
