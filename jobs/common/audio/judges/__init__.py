"""Judges of sounds: other networks and programs that say what is heard. None of them is what made the sound.

Each takes one sound, float (samples,) in [-1, 1] at 16 kHz. One whose package or weights are absent is named in a
sentence, and what it would have said is not there.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from jobs.common.audio.judges.pitch import PitchJudge
from jobs.common.audio.judges.quality import QualityJudge
from jobs.common.audio.judges.speaker import SpeakerJudge
from jobs.common.audio.judges.words import MoonshineJudge, SphinxJudge
from service.errors import InputError

JUDGES: dict[str, Callable[[Path | None], object]] = {
    "pitch": PitchJudge,
    "speaker": SpeakerJudge,
    "moonshine": MoonshineJudge,
    "sphinx": SphinxJudge,
    "quality": QualityJudge,
}


@dataclass(frozen=True)
class Judges:
    """Those that were asked for and are there; None where one is not."""

    pitch: PitchJudge | None = None
    speaker: SpeakerJudge | None = None
    moonshine: MoonshineJudge | None = None
    sphinx: SphinxJudge | None = None
    quality: QualityJudge | None = None
    absent: tuple[str, ...] = ()
    """one sentence for each that was asked for and is not there, with what to do about it"""


def load(names: Collection[str] = tuple(JUDGES), folder: Path | None = None) -> Judges:
    """Judges by name, of JUDGES. folder: of data; none: the default one."""
    there, absent = {}, []
    for name in names:
        try:
            there[name] = JUDGES[name](folder)
        except InputError as error:
            absent.append(str(error))
    return Judges(**there, absent=tuple(absent))  # type: ignore[arg-type]
