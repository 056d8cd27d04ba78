"""Speech by espeak-ng, which the package espeakng-loader brings along: the same samples for the same words, always.

What was spoken is kept in the data folder, by what was asked and by the synthesiser's own content.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from functools import cache
from pathlib import Path

import numpy as np
import safetensors
import torch
from safetensors.torch import load, save

from jobs.common.audio.files import Sound
from jobs.common.data.packaged import packaged_folder
from jobs.common.data.sounds import synthesis_process
from service.errors import FieldError, InputError, nearest

FOLDER = "speech"  # below the data folder
FULL = 32768
TIMEOUT = 1800  # seconds
PITCHES, SPEEDS = (0, 99), (80, 450)


@dataclass(frozen=True)
class Utterance:
    """What is spoken, and how."""

    text: str
    voice: str
    """a language of espeak-ng, with a variant, as in en-us+f2"""
    pitch: int
    """0 to 99"""
    speed: int
    """words a minute, 80 to 450"""


def check_speech(words: Iterable[str], voices: Iterable[str], pitches: Iterable[int], speeds: Iterable[int]) -> None:
    """FieldError or InputError if one of them cannot be spoken; nothing is.

    The variants of a voice must be there: espeak-ng would leave them out.
    """
    for word in words:
        if not word.strip() or "\0" in word:
            raise FieldError("speech.words", "be words", word)
    for name, values, (least, most) in (("pitches", pitches, PITCHES), ("speeds", speeds, SPEEDS)):
        for value in values:
            if not least <= value <= most:
                raise FieldError(f"speech.{name}", f"be from {least} to {most}", value)
    known = {file.name for file in (_synthesiser() / "espeak-ng-data" / "voices" / "!v").iterdir()}
    voices = sorted(set(voices))
    for voice in voices:
        _, plus, variant = voice.partition("+")
        if plus and variant not in known:
            raise FieldError("speech.voices", "end in a variant of espeak-ng", voice, hint=nearest(variant, known))
    _check_voices(tuple(voices))


def speak(utterances: Sequence[Utterance], folder: Path) -> list[Sound]:
    """Sounds of 22,050 samples a second. folder: of data; what is there already is not spoken again.

    InputError if the synthesiser is not installed or cannot do it.
    """
    texts, voices, pitches, speeds = zip(*(astuple(each) for each in utterances), strict=True)
    check_speech(set(texts), set(voices), set(pitches), set(speeds))
    asked = json.dumps([_digest(), [astuple(each) for each in utterances]])
    file = folder / FOLDER / f"{hashlib.sha256(asked.encode()).hexdigest()[:32]}.safetensors"
    spoken = _kept(file)
    if spoken is None:
        rate, lengths, samples = _spoken(utterances)
        spoken = {
            "rate": torch.tensor(rate),
            "lengths": torch.tensor(lengths),
            "samples": torch.from_numpy(np.frombuffer(samples, np.int16).copy()),
        }
        _keep(file, save(spoken))
    parts = torch.split(spoken["samples"], spoken["lengths"].tolist())
    return [Sound(part.float() / FULL, int(spoken["rate"])) for part in parts]


def _synthesiser() -> Path:
    return packaged_folder("espeakng-loader", "espeakng_loader", "spoken words")


@cache
def _digest() -> str:
    """Of the library, of how it is called, and of the data by names and sizes: they are many."""
    folder = _synthesiser()
    digest = hashlib.sha256(_library().read_bytes() + Path(synthesis_process.__file__).read_bytes())
    files = sorted(file for file in folder.rglob("*") if file.is_file() and "espeak-ng-data" in file.parts)
    digest.update(json.dumps([[str(file.relative_to(folder)), file.stat().st_size] for file in files]).encode())
    return digest.hexdigest()


def _library() -> Path:
    kinds = ("libespeak-ng.so", "libespeak-ng.dylib", "espeak-ng.dll")
    for file in (_synthesiser() / kind for kind in kinds):
        if file.is_file():
            return file
    raise InputError(f"spoken words: the installed package espeakng-loader holds none of {', '.join(kinds)}")


@cache
def _check_voices(voices: tuple[str, ...]) -> None:
    """InputError if the synthesiser has not one of them."""
    _asked([], voices)


def _spoken(utterances: Sequence[Utterance]) -> tuple[int, list[int], bytes]:
    """Rate, the length of each in samples, and the samples of all."""
    header, _, samples = _asked(utterances).partition(b"\n")
    facts = json.loads(header)
    return facts["rate"], facts["lengths"], samples


def _asked(utterances: Sequence[Utterance], voices: Sequence[str] = ()) -> bytes:
    """The answer of the process that speaks."""
    request = {
        "library": str(_library()),
        "data": str(_synthesiser() / "espeak-ng-data"),
        "voices": voices,
        "utterances": [astuple(each) for each in utterances],
    }
    command = [sys.executable, "-I", synthesis_process.__file__]
    done = subprocess.run(command, input=json.dumps(request).encode(), capture_output=True, timeout=TIMEOUT)
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip() or f"espeak-ng ended with {done.returncode}"
        raise InputError(f"spoken words: {reason.splitlines()[-1]}")
    return done.stdout


def _kept(file: Path) -> dict[str, torch.Tensor] | None:
    """What was spoken before; None if it was not, or if the file is damaged: it is then spoken again."""
    try:
        return load(file.read_bytes())
    except (OSError, safetensors.SafetensorError, ValueError):
        return None


def _keep(file: Path, data: bytes) -> None:
    """Whole or absent."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as aside:
        aside.write(data)
    os.chmod(aside.name, 0o644)  # others may share the folder
    os.replace(aside.name, file)
