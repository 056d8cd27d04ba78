"""The music of OpenTTD, 31 pieces as MIDI, played by the instruments of a sound font: both arrive in Debian packages.

The package tinysoundfont plays them. Its wheel asks for one that plays through loudspeakers, which nobody needs here
and which has to be compiled: so `make data` installs it without what it asks for.
"""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from jobs.common.audio.files import Sound
from jobs.common.data.debian import OPENMSX, SOUND_FONT, DebianPackage
from jobs.common.data.music.base import Songs, Source, split
from service.errors import InputError

PLAYER = "tinysoundfont==0.3.7"
RATE = 44_100  # samples a second that are played: resampled afterwards, instruments do not alias
WARM_UP = 2.0  # seconds that are played before what is kept, so that held notes sound
INSTANT = 1e-6  # seconds
CHANNELS = 2
QUIETER = -12.0  # dB: many notes at once stay below full scale


def openmsx(source: Source) -> tuple[Songs, Songs]:
    """The pieces by name; the seed says which are in the database. InputError, saying what to do, if one is missing."""
    pieces = sorted(_folder(OPENMSX, source).glob("*.mid"))
    fonts = sorted(_folder(SOUND_FONT, source).glob("*.sf2"))
    if not pieces or not fonts:
        raise InputError("openmsx: its folders hold no MIDI or no sound font", hint="`make data` fetches both")
    if find_spec("tinysoundfont") is None:
        raise InputError("openmsx needs the package tinysoundfont", hint=f"pip install --no-deps {PLAYER}")

    def song(place: int) -> Tensor:
        return source.song_of(Sound(played(pieces[place], fonts[0], source.seconds), RATE))

    return split("openmsx", [piece.stem for piece in pieces], source, song)


def played(piece: Path, font: Path, seconds: float) -> Tensor:
    """The middle of a piece: float32 (samples,) at RATE. Shorter than `seconds` if the piece is."""
    from tinysoundfont import Sequencer, Synth, midi

    events = midi.load(str(piece), persistent=False)
    if not events:
        raise InputError(f"there is no music in {str(piece)!r}")
    length = events[-1].t
    start = max(0.0, (length - seconds) / 2)
    synth = Synth(gain=QUIETER, samplerate=RATE)
    synth.sfload(str(font))
    sequencer = Sequencer(synth)
    sequencer.add(events)
    # what comes long before is not heard, but sets instruments and loudness
    while (rest := start - WARM_UP - sequencer.get_time()) > INSTANT:
        sequencer.process(rest)
    synth.sounds_off()
    synth.generate(round((start - sequencer.get_time()) * RATE))
    samples = np.frombuffer(synth.generate(round(min(seconds, length) * RATE)), np.float32)
    return torch.from_numpy(samples.reshape(-1, CHANNELS).mean(1))


def _folder(package: DebianPackage, source: Source) -> Path:
    folder = source.folder / package.holds
    if not folder.is_dir():
        raise InputError(f"openmsx: there is no {str(folder)!r}", hint="`make data` fetches it")
    return folder
