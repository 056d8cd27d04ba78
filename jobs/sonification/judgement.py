"""What judges hear in the sounds that were made: networks and programs that had no part in making them."""

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from jobs.common.audio import judges
from jobs.common.audio.judges import Judges
from jobs.common.audio.networks.pretrained.crepe import RATE, WINDOW
from jobs.common.audio.pitch import repetition
from jobs.common.audio.resampling import resampled
from jobs.sonification.params import JudgementParams
from jobs.sonification.sonification import Sonification
from service.run import Run

SLICE = 8  # sounds in a cell


def judged(
    name: str, params: JudgementParams, sonifications: Sequence[Sonification], clips: Tensor, rate: int, run: Run
) -> list[dict[str, Any]]:
    """A row for each sound. clips: (sounds, samples), the real clip nearest to each."""
    cells = [
        {"first": first, "last": min(first + SLICE, len(sonifications))}
        for first in range(0, len(sonifications), SLICE)
    ]
    sounds = [resampled(each.sound, rate, RATE) for each in sonifications]
    nearest = resampled(clips, rate, RATE)
    shared = (params.judges, sounds, nearest)
    results = run.map(judge_slice, cells, shared=shared, name=f"judge-{name.replace('_', '-')}")
    verdicts: list[dict[str, Any]] = []
    absent: tuple[str, ...] = ()
    for cell, result in zip(cells, results, strict=True):
        verdicts += [{}] * (cell["last"] - cell["first"]) if result is None else result["verdicts"]
        absent = absent if result is None else tuple(result["absent"])
    for sentence in absent:
        run.warn(f"{name}: {sentence}")
    columns = list(dict.fromkeys(column for verdict in verdicts for column in verdict))
    return [
        {
            "layer": each.feature.layer,
            "name": each.feature.name,
            "copy": each.copy + 1,
            **{column: verdict.get(column) for column in columns},
        }
        for each, verdict in zip(sonifications, verdicts, strict=True)
    ]


def judge_slice(cell: dict[str, int], shared: Any) -> dict[str, Any]:
    """What the judges hear in the sounds of a cell, and who is not there."""
    names, sounds, nearest = shared
    loaded = judges.load(names)
    places = range(cell["first"], cell["last"])
    return {"verdicts": [_verdict(loaded, sounds[place], nearest[place]) for place in places], "absent": loaded.absent}


def _verdict(loaded: Judges, sound: Tensor, clip: Tensor) -> dict[str, Any]:
    """Of one sound at 16 kHz, by name; first how it repeats itself. None where a judge hears nothing."""
    again = repetition(sound, RATE)
    verdict: dict[str, Any] = {
        "repeats_hertz": None if again is None else again.hertz,
        "repeats": None if again is None else again.strength,
    }
    if loaded.pitch is not None and len(sound) >= WINDOW:
        pitch = loaded.pitch.pitch(sound)
        verdict |= {"pitch_hertz": None if math.isnan(pitch.median) else pitch.median, "voiced_share": pitch.voiced}
    if loaded.speaker is not None:
        verdict["voice_like_clip"] = loaded.speaker.similarity(sound, clip)
    if loaded.moonshine is not None and len(sound) >= WINDOW:
        verdict["moonshine_words"] = loaded.moonshine.transcription(sound)
    if loaded.sphinx is not None:
        verdict["sphinx_words"] = loaded.sphinx.transcription(sound)
    if loaded.quality is not None:
        verdict |= {f"quality_{scale}": value for scale, value in loaded.quality.scores(sound).items()}
    return verdict
