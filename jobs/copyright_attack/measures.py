"""How large a change is, how it sounds, and how many peaks of the original are left."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from jobs.common.audio.fingerprints.fingerprint import FingerprintParams
from jobs.common.audio.judges.quality import QualityJudge
from jobs.common.audio.resampling import resampled
from jobs.copyright_attack.attack.masking import noise_to_mask
from jobs.copyright_attack.attack.objectives import survival
from jobs.copyright_attack.clips import UNRELATED, Clip
from service.errors import InputError
from service.run import Run

SLICE = 16  # clips in a cell
LISTENER_RATE = 16_000  # samples a second that DNSMOS takes


def norms(original: Tensor, changed: Tensor) -> dict[str, float]:
    """Of the change: the largest sample, the root mean square, the ratio of powers of original and change in dB.

    original, changed: (samples,). Without a change the ratio is infinite.
    """
    change = (changed - original).double()
    power, own = float(change.square().mean()), float(original.double().square().mean())
    ratio = 10 * math.log10(own / power) if own and power else math.copysign(math.inf, own - power)
    return {"linf": float(change.abs().max()), "rms": math.sqrt(power), "snr": ratio}


def measured(
    clips: Sequence[Clip],
    originals: Tensor,
    fingerprints: Mapping[str, FingerprintParams],
    rate: int,
    quality: bool,
    run: Run,
) -> list[dict[str, Any]]:
    """A row for each clip. originals: (songs, samples). quality: whether DNSMOS listens as well.

    Columns beside the norms: noise_to_mask in dB, survival_NAME of each fingerprint, and quality_SCALE.
    """
    slices = [(first, min(first + SLICE, len(clips))) for first in range(0, len(clips), SLICE)]
    cells = [{"first": first, "last": last} for first, last in slices]
    pairs = [(None if clip.kind == UNRELATED else originals[clip.song], clip.sound) for clip in clips]
    results = run.map(measure_cell, cells, shared=(pairs, fingerprints, rate, quality), name="measure")
    rows: list[dict[str, Any]] = []
    absent = None
    for (first, last), result in zip(slices, results, strict=True):
        rows += [{}] * (last - first) if result is None else result["rows"]
        absent = absent if result is None else result["absent"]
    if absent:
        run.warn(absent)
    columns = list(dict.fromkeys(column for row in rows for column in row))
    return [{column: row.get(column) for column in columns} for row in rows]


def measure_cell(cell: dict[str, int], shared: Any) -> dict[str, Any]:
    """The rows of some clips, and why nobody listened to them, if that was asked."""
    pairs, fingerprints, rate, quality = shared
    listener, absent = None, None
    if quality:
        try:
            listener = QualityJudge()
        except InputError as error:
            absent = str(error)
    members = {name: each.build() for name, each in fingerprints.items()}
    rows = []
    for original, sound in pairs[cell["first"] : cell["last"]]:
        row: dict[str, float | None] = {}
        if original is not None:
            row |= norms(original, sound)
            audible = float(noise_to_mask(original[None], sound[None], rate)[0])
            row["noise_to_mask"] = audible if row["rms"] else None
            for name, fingerprint in members.items():
                row[f"survival_{name}"] = float(survival(fingerprint, original[None], sound[None], rate)[0])
        if listener is not None:
            scores = listener.scores(resampled(sound, rate, LISTENER_RATE))
            row |= {f"quality_{scale}": value for scale, value in scores.items()}
        rows.append(row)
    return {"rows": rows, "absent": absent}


def decibels(ratio: float) -> float:
    """Of a ratio of amplitudes."""
    return 20 * math.log10(ratio)


def amplitude(level: float) -> float:
    """Of decibels."""
    return float(10 ** (level / 20))


def mixed(original: Tensor, change: Tensor, level: float) -> Tensor:
    """An original with a change of some loudness, turned down where it would leave full scale: (samples,).

    level: the root mean square of the change relative to the original's, in dB. Silence of either stays silence.
    """
    own, other = (each.double().square().mean().sqrt().float() for each in (original, change))
    sound = original + change * (amplitude(level) * own / other.clamp(min=torch.finfo(torch.float32).tiny))
    return sound / sound.abs().max().clamp(min=1)
