"""What a spec says of the judges."""

from typing import Annotated, Literal

from pydantic import Field

from jobs.common.params import ONCE, StudyParams
from jobs.copyright_attack.judges.neural.params import NeuralParams

JudgeName = Literal["chromaprint", "acoustid", "audfprint", "dejavu", "wang", "neural"]
EVERY: tuple[JudgeName, ...] = ("chromaprint", "acoustid", "audfprint", "dejavu", "wang", "neural")


class JudgesParams(StudyParams):
    """Who is asked which song a sound is of. None of them knows of the attack."""

    names: Annotated[tuple[JudgeName, ...], ONCE] = Field(
        EVERY,
        min_length=1,
        description="chromaprint and acoustid (the program fpcalc, two rules), audfprint (the package audfprint2), "
        "dejavu and wang (matchers of our own in their manner), neural (trained here); one that is not there is named "
        "in a warning",
    )
    neural: NeuralParams = Field(NeuralParams(), description="how the neural fingerprint is trained")
    false_alarms: float = Field(
        0.01, gt=0, lt=1, description="share of excerpts of songs that are not enrolled that a judge may take for one"
    )
