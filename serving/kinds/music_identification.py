"""Databases of songs as endpoints: samples in [-1, 1] or an uploaded sound in; which song it is from, and where, out.

Sounds are (rows, samples) at the rate of the model; an uploaded one of another rate is brought to it, and several
channels to their mean. What is longer than the sounds by which the database was calibrated is compared by its middle.
Outputs:

    song                INT64: its place among the names in the model's settings; -1: the sound is in none of them
    confidence          FP32: the share of sounds from outside that are less like their best song
    seconds             FP32: where in the song the sound begins
    best                INT64: the nearest song, also where too few of its hashes agree; -1: none agrees
    aligned             INT64: hashes that agree with it at one place
    hashes              INT64: of the sound
    runner_up           INT64: the next song; -1: there is none
    runner_up_aligned   INT64
    spectrogram         UINT8 (rows, bins, frames), if requested by name: 255 for the loudest place, 0 for 80 dB below
    peaks               UINT8, the same shape, if requested by name: 1 at a peak

They take no parameters. Attacks are in `serving.kinds.music_attack`.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import BaseModel, Field
from torch import Tensor, nn

from jobs.common.audio.fingerprints.card import SOUNDS, TASK
from jobs.common.audio.fingerprints.database import Database, Match
from service.errors import InputError, ModelError, first_line
from service.models import ModelCard, TensorSpec
from serving.http.messages import TENSORS, Form
from serving.http.protocol import InferRequest, Scalar, check_parameters
from serving.http.settings import Attacks, ServeSettings
from serving.http.sound_upload import SoundUpload
from serving.http.tensors import Array
from serving.kinds import music_attack
from serving.kinds.base import Endpoint, Example, card_settings, split, unusable
from serving.kinds.music_attack import match_outputs
from serving.kinds.work import Abandoned, Answer, AttackWork, Stopped, Work

OF_SOUND = (
    ("song", "INT64"),
    ("confidence", "FP32"),
    ("seconds", "FP32"),
    ("best", "INT64"),
    ("aligned", "INT64"),
    ("hashes", "INT64"),
    ("runner_up", "INT64"),
    ("runner_up_aligned", "INT64"),
)
MAPS = ("spectrogram", "peaks")
SHOWN = 80.0  # dB of a spectrogram


class CardSettings(BaseModel):
    """The settings of the card of a database.

    names: of the songs. samples: of the sounds that calibrated it.
    """

    names: tuple[str, ...] = Field(min_length=1)
    rate: int = Field(ge=1000, le=192_000)
    samples: int = Field(ge=1, le=600 * 192_000)


class MusicIdentification(Endpoint):
    """A loaded database."""

    task: ClassVar[str] = TASK
    actions: ClassVar[tuple[str, ...]] = ("infer", "attack")
    attacks: ClassVar[Mapping[str, Any]] = music_attack.DESCRIBED
    panel: ClassVar[str] = "music"

    def __init__(self, card: ModelCard, network: nn.Module, settings: ServeSettings, device: torch.device) -> None:
        super().__init__(card, network, settings, device)
        parsed = card_settings(card, CardSettings)
        if not isinstance(network, Database):
            raise ModelError(f"model {card.name!r}: for {TASK} it must be a Database; it is {type(network).__name__}")
        self.database, self.names, self._compared = network, parsed.names, parsed.samples
        try:
            network.check()
        except ModelError as error:
            raise ModelError(f"model {card.name!r}: {error}") from error
        if len(network) != len(parsed.names):
            raise unusable(card, f"settings.names has {len(parsed.names)} names for {len(network)} songs")
        if network.rate != parsed.rate:
            raise unusable(card, f"settings.rate is {parsed.rate}, but the database expects {network.rate}")
        if len(card.inputs) != 1 or (card.inputs[0].name, card.inputs[0].shape) != (SOUNDS, (-1, -1)):
            raise ModelError(f"model {card.name!r}: a database has one input {SOUNDS!r}, FP32 (-1, -1)")
        self.upload = SoundUpload(SOUNDS, parsed.rate, None, settings.limits.sound_seconds)
        self._most = round(settings.limits.sound_seconds * parsed.rate)

    @staticmethod
    def outputs_of(card: ModelCard) -> tuple[TensorSpec, ...]:
        of_sound = [TensorSpec(name=name, datatype=datatype, shape=(-1,)) for name, datatype in OF_SOUND]
        maps = [TensorSpec(name=name, datatype="UINT8", shape=(-1, -1, -1)) for name in MAPS]
        return (*of_sound, *maps)

    @staticmethod
    def example_for(card: ModelCard) -> Example | None:
        return Example("outputs=song,confidence,seconds", "song.wav", "audio/wav")

    def gmacs(self, rows: int, samples: int) -> float:
        """10^9 multiplications of the fingerprints of sounds: N log2 N for each Fourier transform of N samples."""
        resolutions = self.database.fingerprint.resolutions
        each = [one.frames(samples) * one.samples * math.log2(one.samples) for one in resolutions]
        return rows * sum(each) / 1e9

    def check_sounds(self, sounds: Array) -> None:
        """InputError unless they are sounds of a length that can be compared."""
        shortest, samples = self.database.fingerprint.shortest, sounds.shape[1]
        if not shortest <= samples <= self._most:
            raise InputError(f"input {SOUNDS!r} must have {shortest:,} to {self._most:,} samples; it has {samples:,}")
        if (largest := float(np.abs(sounds).max())) > 1:
            hint = "divide by 32768" if 1 < largest <= 32768 else "samples are not scaled"
            raise InputError(
                f"input {SOUNDS!r}: samples must be in [-1, 1]; the largest magnitude is {largest:g}", hint
            )

    def identify(self, sounds: Tensor) -> list[Match]:
        """What each sound (rows, samples) is from; `seconds` is about its beginning, whichever part is compared."""
        start = self._start(sounds.shape[1])
        middle = sounds[:, start : start + self._compared].to(self.device)
        with torch.no_grad():
            return [self.database.identify(sound).moved(-start / self.database.rate) for sound in middle]

    def _start(self, samples: int) -> int:
        """Where the middle of a sound begins that is compared."""
        return max(0, (samples - self._compared) // 2)

    def warning(self, samples: int) -> str:
        """A sentence about sounds that are too long to be compared whole; empty if they are not."""
        if samples <= self._compared:
            return ""
        compared, sent = self._compared / self.database.rate, samples / self.database.rate
        return f"the middle {compared:.3g} of {sent:.3g} seconds are compared, for which the database is calibrated"

    def prepare(self, inputs: Mapping[str, Array], parameters: Mapping[str, Scalar], form: Form = TENSORS) -> Work:
        check_parameters(parameters, ())
        sounds = inputs[SOUNDS]
        self._check_rows(SOUNDS, sounds)
        self.check_sounds(sounds)
        rows, samples = sounds.shape
        if (gmacs := self.gmacs(rows, samples)) > self._limits.gmacs:
            most = f"{self._limits.gmacs:,.0f} billion multiplications (limits.gmacs)"
            raise InputError(
                f"input {SOUNDS!r} must take at most {most}; it takes {gmacs:,.0f}", "send fewer or shorter"
            )
        maps = tuple(name for name in MAPS if name in (form.outputs or ()))
        values = self._map_values(rows, samples, maps)
        return Work(sounds, (samples, maps), maps, gmacs, values, self.warning(samples))

    def _map_values(self, rows: int, samples: int, maps: Iterable[str]) -> int:
        """How many numbers the maps have that are asked for. InputError if they are too many."""
        resolution = self.database.fingerprint.resolutions[0]
        values = rows * resolution.bins * resolution.frames(samples) * len(tuple(maps))
        if values > (most := self._limits.map_values):
            raise InputError(
                f"{' and '.join(maps)} must have at most {most:,} numbers (limits.map_values); they have {values:,}",
                "send fewer or shorter",
            )
        return values

    def compute(self, works: Sequence[Work], stopped: Stopped) -> list[Answer]:
        """Identify the sounds of all works, which have one length."""
        if stopped():
            raise Abandoned
        sounds = torch.from_numpy(np.concatenate([work.inputs for work in works]))
        try:
            outputs = match_outputs(self.identify(sounds))
            for name in works[0].options:
                outputs[name] = np.concatenate([self._map(name, sound) for sound in sounds])
        except (RuntimeError, FloatingPointError) as error:
            raise ModelError(
                f"model {self.card.name!r} does not run on {list(sounds.shape)}: {first_line(error)}"
            ) from error
        return split(outputs, works)

    def _map(self, name: str, sound: Tensor) -> Array:
        """A picture of the first resolution: uint8 (1, bins, frames)."""
        sound = sound[None].to(self.device)
        fingerprint = self.database.fingerprint
        with torch.no_grad():
            if name == "peaks":
                return fingerprint.peaks(sound)[0].to("cpu", torch.uint8).numpy()
            magnitudes = fingerprint.magnitudes(sound)[0]
            loudest = magnitudes.max().clamp(min=1e-9)
            decibels = 20 * (magnitudes / loudest).clamp(min=1e-9).log10()
            return (255 * (1 + decibels / SHOWN).clamp(min=0)).round().to("cpu", torch.uint8).numpy()

    def prepare_attack(self, request: InferRequest, form: Form, limits: Attacks) -> AttackWork:
        return music_attack.prepare(self, request, form, limits)
