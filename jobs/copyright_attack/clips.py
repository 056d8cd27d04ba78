"""What judges are asked about: originals, what attacks made of them, noise as large, songs that nobody enrolled."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from jobs.common.audio.levels import at_loudness, quantised
from jobs.common.data.music.base import Songs
from jobs.common.data.music.excerpts import Excerpts, excerpts
from jobs.copyright_attack.attack.search import FULL, attack, check_sounds, quantised_changes, within
from jobs.copyright_attack.attack.universal import universal
from jobs.copyright_attack.encodings import file_rate, mp3
from jobs.copyright_attack.params import NamedAttack, Params
from service.errors import FieldError
from service.run import Run, reserved_device

ORIGINAL, UNRELATED, ATTACK = "original", "unrelated", "attack"
NOISES = ("uniform_linf", "uniform", "gaussian")
"""noise with the largest sample of the attack's change; with its root mean square, of two distributions"""
UNIVERSAL = "universal"


@dataclass(frozen=True)
class Clip:
    """One sound that judges are asked about."""

    song: int
    """the place of the song that it is of; among the other songs if it is unrelated"""
    kind: str
    """original, unrelated, attack, or one of NOISES"""
    attack: str
    """that made it, or whose change the noise is as large as; empty of none"""
    epsilon: float
    """size of that attack's bound; 0 of none"""
    kilobits: int
    """of the MP3 that it went through; 0 of none"""
    sound: Tensor
    """float32 (samples,) as 16 bits hold it"""

    @property
    def key(self) -> tuple[int, str, str, float, int]:
        return self.song, self.kind, self.attack, self.epsilon, self.kilobits

    @property
    def digest(self) -> str:
        """The same for sounds that are the same."""
        return hashlib.sha256(self.sound.contiguous().numpy().data).hexdigest()


@dataclass(frozen=True)
class Subjects:
    """The excerpts that are attacked, one of each song, and those of songs that are not enrolled."""

    own: Excerpts
    others: Excerpts

    @property
    def rate(self) -> int:
        return self.own.rate


def subjects_of(params: Params, enrolled: Songs, others: Songs, run: Run) -> Subjects:
    """FieldError if there are fewer songs than are to be attacked, or songs are shorter than an excerpt.

    InputError about excerpts that cannot be attacked, or that no MP3 file takes.
    """
    count = len(enrolled) if params.songs is None else params.songs
    if count > len(enrolled):
        raise FieldError("songs", f"be at most {len(enrolled)}, the number of enrolled songs", count)
    if count < 2 and any(each.objective.kind == "remix" for each in params.attacks.values()):
        raise FieldError("songs", "be at least 2 for the objective remix, which moves toward the next song", count)
    own = excerpts(enrolled.part(range(count)), params.seconds, 1, run.seed_for("excerpts"))
    unrelated = excerpts(others, params.seconds, 1, run.seed_for("unrelated"))
    subjects = Subjects(
        *(replace(each, sounds=quantised(at_loudness(each.sounds, params.loudness))) for each in (own, unrelated))
    )
    fingerprints = [each.build() for each in params.fingerprints.values()]
    check_sounds(subjects.own.sounds, subjects.rate, fingerprints)
    for kilobits in params.encodings:
        file_rate(subjects.rate, kilobits)
    return subjects


def made(params: Params, subjects: Subjects, run: Run) -> dict[tuple[str, float], Tensor]:
    """What attacks made of the excerpts: by name and size of the bound, (songs, samples); NaN where a cell failed."""
    count = len(subjects.own)
    cells: list[dict[str, Any]] = [
        {"attack": name, "epsilon": epsilon, "first": first, "last": min(first + params.batch, count),
         "seed": run.seed_for("attack", name, first)}
        for name, each in params.attacks.items()
        for epsilon in each.epsilons
        for first in range(0, count, params.batch)
    ]  # fmt: skip
    shared = (params.attacks, params.fingerprints, subjects.own.sounds, subjects.rate)
    results = run.map(attack_cell, cells, shared=shared, name="attack")
    sounds: dict[tuple[str, float], Tensor] = {}
    for cell, result in zip(cells, results, strict=True):
        key = (cell["attack"], cell["epsilon"])
        every = sounds.setdefault(key, torch.full_like(subjects.own.sounds, torch.nan))
        if result is not None:
            every[cell["first"] : cell["last"]] = result.float() / FULL
    return sounds


def attack_cell(cell: dict[str, Any], shared: Any) -> Tensor:
    """What one attack makes of some songs: int16 (songs, samples). Remix moves each toward the next song."""
    attacks, fingerprints, sounds, rate = shared
    params: NamedAttack = attacks[cell["attack"]]
    device, places = reserved_device(), torch.arange(cell["first"], cell["last"])
    targets = sounds[(places + 1) % len(sounds)].to(device) if params.objective.kind == "remix" else None
    members = [fingerprints[name].build() for name in params.fingerprints or fingerprints]
    done = attack(sounds[places].to(device), rate, members, params, cell["epsilon"], targets, cell["seed"])
    return (done.sounds * FULL).round().to(torch.int16).cpu()


def made_universal(params: Params, subjects: Subjects, run: Run) -> dict[tuple[str, float], Tensor]:
    """The excerpts with one change for all, which was made on the songs that are not enrolled, at any place in it."""
    if params.universal is None:
        return {}
    if not len(subjects.others):
        raise FieldError("data.others", "be at least 1: the change is made on songs that are not enrolled", 0)
    seed = run.seed_for("universal")
    cells = [{"epsilon": epsilon, "seed": seed} for epsilon in params.universal.attack.epsilons]
    shared = (params.universal.attack, params.fingerprints, subjects.others.sounds, subjects.rate)
    results = run.map(universal_cell, cells, shared=shared, name="universal")
    turns = torch.Generator().manual_seed(run.seed_for("universal-turns"))
    samples = subjects.own.sounds.shape[1]
    offsets = torch.randint(samples, (len(subjects.own),), generator=turns).tolist()
    sounds = {}
    for cell, change in zip(cells, results, strict=True):
        if change is not None:
            moved = torch.stack([change.roll(offset) for offset in offsets])
            own = subjects.own.sounds
            sounds[UNIVERSAL, cell["epsilon"]] = own + quantised_changes(own, within(own, moved))
    return sounds


def universal_cell(cell: dict[str, Any], shared: Any) -> Tensor:
    """One change for all songs: float32 (samples,)."""
    params, fingerprints, sounds, rate = shared
    members = [fingerprints[name].build() for name in params.fingerprints or fingerprints]
    return universal(sounds.to(reserved_device()), rate, members, params, cell["epsilon"], cell["seed"]).cpu()


def noise_like(kind: str, original: Tensor, changed: Tensor, seed: int) -> Tensor:
    """An original with noise as large as a change of it: (samples,), cut off at full scale as the change was.

    kind: uniform_linf has the largest sample of the change, uniform and gaussian its root mean square.
    """
    change, generator = changed - original, torch.Generator().manual_seed(seed)
    if kind == "gaussian":
        noise = torch.randn(original.shape, generator=generator)
    else:
        noise = 2 * torch.rand(original.shape, generator=generator) - 1
    size = (
        change.abs().max() if kind == "uniform_linf" else change.square().mean().sqrt() / noise.square().mean().sqrt()
    )
    return original + quantised_changes(original, within(original, size * noise))


def with_controls(
    params: Params, subjects: Subjects, attacked: Mapping[tuple[str, float], Tensor], run: Run
) -> list[Clip]:
    """All that judges are asked about, but for MP3 files. The noise of a song is one draw, louder or fainter."""
    own = subjects.own.sounds
    clips = [Clip(place, ORIGINAL, "", 0.0, 0, own[place]) for place in range(len(own))]
    clips += [Clip(place, UNRELATED, "", 0.0, 0, sound) for place, sound in enumerate(subjects.others.sounds)]
    for (name, epsilon), sounds in attacked.items():
        for place, sound in enumerate(sounds):
            if not bool(sound.isfinite().all()):
                continue  # its cell failed, and the run ends as partial
            clips.append(Clip(place, ATTACK, name, epsilon, 0, sound))
            for kind in NOISES:
                noisy = noise_like(kind, own[place], sound, run.seed_for("noise", kind, place))
                clips.append(Clip(place, kind, name, epsilon, 0, noisy))
    return clips


def encoded(params: Params, clips: Sequence[Clip], rate: int, run: Run) -> tuple[list[Clip], dict[int, float]]:
    """Attacked clips after MP3 files of each rate, and the kbit/s that the files have, by those that were asked for."""
    chosen = [clip for clip in clips if clip.kind in (ATTACK, ORIGINAL)]
    cells = [{"clip": place, "kilobits": rate_} for rate_ in params.encodings for place in range(len(chosen))]
    results = run.map(mp3_cell, cells, shared=([clip.sound for clip in chosen], rate), name="mp3")
    after, written = [], {}
    for cell, result in zip(cells, results, strict=True):
        if result is not None:
            clip = chosen[cell["clip"]]
            sound = result["sound"].float() / FULL
            after.append(replace(clip, kilobits=cell["kilobits"], sound=sound))
            written[cell["kilobits"]] = result["written"]
    return after, written


def mp3_cell(cell: dict[str, Any], shared: Any) -> dict[str, Any]:
    """One clip through one MP3 file."""
    sounds, rate = shared
    sound, written = mp3(sounds[cell["clip"]], rate, cell["kilobits"])
    return {"sound": (sound.clamp(-1, 1) * FULL).round().to(torch.int16), "written": written}
