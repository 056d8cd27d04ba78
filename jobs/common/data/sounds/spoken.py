"""Spoken digits, or other words, synthesised by many voices at several pitches and speeds."""

import math
from functools import cached_property
from itertools import product
from typing import Any

import torch
from torch import Tensor

from jobs.common.audio.files import Sound
from jobs.common.audio.levels import peak
from jobs.common.data.batches import permutation
from jobs.common.data.sets import Split
from jobs.common.data.sounds.base import Labelled, Source, check_size, clip_of
from jobs.common.data.sounds.synthesis import Utterance, check_speech, speak
from service.errors import FieldError, InputError

TRAIN_SHARE = 0.8
SPLIT_SEED = 0
SILENCE = 0.01  # of the peak: what is below it at the ends is cut off
MOST = 50_000  # utterances


class Spoken(Labelled):
    """Utterances, which are spoken when a clip is asked for: an estimate asks for none."""

    def __init__(self, source: Source, utterances: list[Utterance], places: list[int]) -> None:
        """utterances: of both splits. places: of those in this one."""
        chosen = [utterances[place] for place in places]
        words = source.speech.words
        super().__init__(
            "spoken_digits",
            words,
            source.samples,
            torch.tensor([words.index(each.text) for each in chosen]),
            source.rate,
            [f"{each.text}, {each.voice}, pitch {each.pitch}, speed {each.speed}" for each in chosen],
            {
                "voice": tuple(each.voice for each in chosen),
                "pitch": tuple(float(each.pitch) for each in chosen),
                "speed": tuple(float(each.speed) for each in chosen),
            },
        )
        self._source, self._utterances, self._places = source, utterances, places

    @cached_property
    def data(self) -> Tensor:
        sounds = speak(self._utterances, self._source.folder)
        return torch.stack([clip_of(_trimmed(sounds[place]), self._source, place) for place in self._places])

    def __getstate__(self) -> dict[str, Any]:
        """With its samples: they are the same wherever it is sent, and need no synthesiser there."""
        return {**vars(self), "data": self.data}


def spoken_digits(split: Split, source: Source) -> Spoken:
    """The words of `speech`, a class each. Its factors are voice, pitch and speed, in units of espeak-ng."""
    speech = source.speech
    if (count := math.prod(map(len, (speech.words, speech.voices, speech.pitches, speech.speeds)))) > MOST:
        raise FieldError("speech", f"have at most {MOST:,} combinations of words and voices", f"{count:,}")
    check_size("spoken_digits", count, source)
    check_speech(speech.words, speech.voices, speech.pitches, speech.speeds)
    utterances = [
        Utterance(word, voice, pitch, speed)
        for word, voice, pitch, speed in product(speech.words, speech.voices, speech.pitches, speech.speeds)
    ]
    order = permutation(len(utterances), SPLIT_SEED).tolist()
    train = round(TRAIN_SHARE * len(utterances))
    places = order[:train] if split == "train" else order[train:]
    if not places:
        raise InputError(f"spoken_digits: {len(utterances)} utterances are too few to {split}")
    return Spoken(source, utterances, places)


def _trimmed(sound: Sound) -> Sound:
    """Without the silence at both ends."""
    samples = sound.samples
    loud = (samples.abs() > SILENCE * peak(samples)).nonzero().flatten()
    if not len(loud):
        raise InputError("spoken_digits: the synthesiser was silent")
    return Sound(samples[int(loud[0]) : int(loud[-1]) + 1], sound.rate)
