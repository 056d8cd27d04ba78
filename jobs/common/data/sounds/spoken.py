"""Spoken digits, or other words, synthesised by many voices at several pitches and speeds."""

import math
from itertools import product

import torch
from torch import Tensor

from jobs.common.audio.files import Sound
from jobs.common.audio.levels import peak
from jobs.common.data.batches import permutation
from jobs.common.data.sets import Split
from jobs.common.data.sounds.base import Clips, Source, check_size, clip_of
from jobs.common.data.sounds.synthesis import Utterance, speak
from service.errors import FieldError, InputError

TRAIN_SHARE = 0.8
SPLIT_SEED = 0
SILENCE = 0.01  # of the peak: what is below it at the ends is cut off
MOST = 50_000  # utterances


def spoken_digits(split: Split, source: Source) -> Clips:
    """The words of `speech`, a class each. Its factors are voice, pitch and speed, in units of espeak-ng."""
    speech = source.speech
    if len(set(speech.words)) < len(speech.words):
        raise FieldError("speech.words", "differ from each other", speech.words)
    if (count := math.prod(map(len, (speech.words, speech.voices, speech.pitches, speech.speeds)))) > MOST:
        raise FieldError("speech", f"have at most {MOST:,} combinations of words and voices", f"{count:,}")
    check_size("spoken_digits", count, source)
    spoken = [
        Utterance(word, voice, pitch, speed)
        for word, voice, pitch, speed in product(speech.words, speech.voices, speech.pitches, speech.speeds)
    ]
    order = permutation(len(spoken), SPLIT_SEED).tolist()
    train = round(TRAIN_SHARE * len(spoken))
    chosen = order[:train] if split == "train" else order[train:]
    if not chosen:
        raise InputError(f"spoken_digits: {len(spoken)} utterances are too few to {split}")

    sounds = speak(spoken, source.folder)
    clips = [clip_of(Sound(_trimmed(sounds[place].samples), sounds[place].rate), source, place) for place in chosen]
    utterances = [spoken[place] for place in chosen]
    return Clips(
        "spoken_digits",
        speech.words,
        torch.stack(clips),
        torch.tensor([speech.words.index(each.text) for each in utterances]),
        source.rate,
        [f"{each.text}, {each.voice}, pitch {each.pitch}, speed {each.speed}" for each in utterances],
        {
            "voice": tuple(each.voice for each in utterances),
            "pitch": tuple(float(each.pitch) for each in utterances),
            "speed": tuple(float(each.speed) for each in utterances),
        },
    )


def _trimmed(samples: Tensor) -> Tensor:
    """Without the silence at both ends. samples: (n,)."""
    loud = (samples.abs() > SILENCE * peak(samples)).nonzero().flatten()
    if not len(loud):
        raise InputError("spoken_digits: the synthesiser was silent")
    return samples[int(loud[0]) : int(loud[-1]) + 1]
