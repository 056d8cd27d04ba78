"""The phonemes of English, one at a time, as the synthesiser speaks them."""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from jobs.common.data.sounds.synthesis import Utterance, speak

PHONEMES = {
    **{"iː": "i:", "ɪ": "I", "ɛ": "E", "æ": "a", "ɑː": "A:", "ɒ": "0", "ɔː": "O:", "ʊ": "U", "uː": "u:", "ʌ": "V"},
    **{"ɜː": "3:", "ə": "@", "eɪ": "eI", "aɪ": "aI", "ɔɪ": "OI", "oʊ": "oU", "aʊ": "aU"},
    **{"p": "p", "b": "b", "t": "t", "d": "d", "k": "k", "ɡ": "g", "tʃ": "tS", "dʒ": "dZ", "f": "f", "v": "v"},
    **{"θ": "T", "ð": "D", "s": "s", "z": "z", "ʃ": "S", "ʒ": "Z", "h": "h", "m": "m", "n": "n", "ŋ": "N", "l": "l"},
    **{"r": "r", "j": "j", "w": "w"},
}
"""in the international alphabet, and in espeak-ng's"""
VOWELS = 17  # of them, which come first
VOICES = ("en-us+m1", "en-us+f2")
PITCH, SPEED = 50, 120


@dataclass(frozen=True)
class Phoneme:
    """One phoneme by one voice. A consonant is spoken before a schwa, as nobody can say it alone."""

    name: str
    sound: Tensor
    """(samples,)"""
    rate: int


def phonemes(folder: Path) -> list[Phoneme]:
    """All of them by each voice. folder: of data. InputError if the synthesiser is not installed."""
    asked = [
        (name, Utterance(_written(place, code), voice, PITCH, SPEED))
        for voice in VOICES
        for place, (name, code) in enumerate(PHONEMES.items())
    ]
    sounds = speak([utterance for _, utterance in asked], folder)
    return [Phoneme(name, sound.samples, sound.rate) for (name, _), sound in zip(asked, sounds, strict=True)]


def _written(place: int, code: str) -> str:
    return f"[[{code}]]" if place < VOWELS else f"[[{code}@]]"
