"""Tunes as notes: melody, chords, bass and drums over a progression of chords, drawn from a seed.

Tunes share keys, tempi, progressions, rhythms and instruments, as songs do: what tells two of them apart is what is
played when. A phrase that comes again is varied, and no note falls exactly on the beat.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

BAR = 16  # steps, each a sixteenth note
BARS = 4  # of a phrase
SCALES = {
    "major": (0, 2, 4, 5, 7, 9, 11),
    "minor": (0, 2, 3, 5, 7, 8, 10),
    "dorian": (0, 2, 3, 5, 7, 9, 10),
    "mixolydian": (0, 2, 4, 5, 7, 9, 10),
}
TEMPI = tuple(range(80, 152, 8))  # beats a minute
PROGRESSIONS = ((0, 4, 5, 3), (0, 5, 3, 4), (5, 3, 0, 4), (0, 3, 4, 0), (0, 3, 0, 4), (1, 4, 0, 5), (3, 4, 5, 0))
"""degrees of the scale, one a bar"""
FORMS = ("AABA", "ABAB", "AABB", "ABAC", "ABCA")
RHYTHMS = (
    (4, 4, 4, 4),
    (2, 2, 4, 4, 4),
    (6, 2, 4, 4),
    (3, 3, 2, 8),
    (8, 4, 2, 2),
    (2, 2, 2, 2, 4, 4),
    (4, 2, 2, 6, 2),
    (3, 3, 4, 3, 3),
    (12, 4),
    (1, 1, 2, 4, 2, 2, 4),
)
"""lengths of the notes of a bar, in steps"""
ACCOMPANIMENTS: dict[str, tuple[tuple[int, int, tuple[int, ...]], ...]] = {
    "held": ((0, 16, (0, 1, 2)),),
    "beats": tuple((4 * beat, 3, (0, 1, 2)) for beat in range(4)),
    "off beats": tuple((4 * beat + 2, 2, (0, 1, 2)) for beat in range(4)),
    "broken": tuple((2 * place, 3, (tone,)) for place, tone in enumerate((0, 1, 2, 1, 0, 1, 2, 1))),
    "rising": tuple((2 * place, 4, (tone,)) for place, tone in enumerate((0, 1, 2, 3, 2, 1, 2, 1))),
    "waltzing": ((0, 4, (0,)), (4, 3, (1, 2)), (8, 4, (0,)), (12, 3, (1, 2))),
}
"""(step, length, tones of the chord) of a bar"""
BASSES: tuple[tuple[tuple[int, int, int], ...], ...] = (
    ((0, 8, 0), (8, 8, 0)),
    ((0, 6, 0), (6, 2, 0), (8, 6, 4), (14, 2, 4)),
    tuple((4 * beat, 4, (0, 2, 4, 2)[beat]) for beat in range(4)),
    tuple((2 * place, 2, 0) for place in range(8)),
    ((0, 3, 0), (3, 3, 0), (6, 4, 4), (10, 6, 0)),
)
"""(step, length, degree above the root) of a bar"""
DRUMS: tuple[dict[str, tuple[int, ...]], ...] = (
    {"kick": (0, 8), "snare": (4, 12), "hat": tuple(range(0, 16, 2))},
    {"kick": (0, 6, 10), "snare": (4, 12), "hat": tuple(range(0, 16, 4))},
    {"kick": (0, 4, 8, 12), "snare": (4, 12), "hat": (2, 6, 10, 14)},
    {"kick": (0, 3, 8, 11), "snare": (4, 12, 15), "hat": tuple(range(16))},
    {"kick": (0,), "snare": (8,), "hat": (0, 4, 6, 8, 12, 14)},
    {},
)
"""steps of a bar"""
LOWEST_BASS, LOWEST_CHORD, LOWEST_LEAD = 33, 52, 64  # numbers of MIDI
RANGE = 17  # semitones of a melody
LATE = 0.008  # standard deviation of the time at which a note begins, in seconds
REST, VARIED = 0.12, 0.2  # of the notes of a melody: silent; another one when the phrase comes again


@dataclass(frozen=True)
class Note:
    """One note. part: lead, chords, bass, or the name of a drum. pitch: a number of MIDI. loudness: 1 is usual."""

    part: str
    pitch: int
    start: float
    """seconds"""
    length: float
    """seconds"""
    loudness: float


@dataclass(frozen=True)
class Phrase:
    """Four bars, as they are written.

    melody: (step, length, degree of the scale above the key) of each note. drums: None leaves them out.
    """

    chords: tuple[int, ...]
    melody: tuple[tuple[int, int, int], ...]
    accompaniment: str
    bass: int
    drums: int


@dataclass(frozen=True)
class Key:
    """A scale on a tonic, which is 0 for C to 11 for B."""

    tonic: int
    scale: str

    def pitch(self, degree: int, lowest: int) -> int:
        """The number of MIDI of a degree above the first tonic that is at `lowest` or higher."""
        octave, place = divmod(degree, 7)
        return lowest + (self.tonic - lowest) % 12 + 12 * octave + SCALES[self.scale][place]


@dataclass(frozen=True)
class Tune:
    """What is played, and how fast."""

    key: Key
    tempo: int
    """beats a minute"""
    notes: tuple[Note, ...]


def composed(seconds: float, stream: np.random.Generator) -> Tune:
    """A tune that lasts at least so long."""
    key = Key(int(stream.integers(12)), str(stream.choice(list(SCALES))))
    tempo = int(stream.choice(TEMPI))
    step = 60 / tempo / 4
    form = str(stream.choice(FORMS))
    phrases = {letter: _phrase(stream) for letter in sorted(set(form))}
    count = int(np.ceil(seconds / (step * BAR * BARS)))
    notes: list[Note] = []
    played: set[str] = set()
    for place in range(count):
        letter = form[place % len(form)]
        phrase = _varied(phrases[letter], stream) if letter in played else phrases[letter]
        played.add(letter)
        notes += _played(phrase, key, place * BAR * BARS, step, stream)
    return Tune(key, tempo, tuple(notes))


def _phrase(stream: np.random.Generator) -> Phrase:
    chords = PROGRESSIONS[stream.integers(len(PROGRESSIONS))]
    names = list(ACCOMPANIMENTS)
    return Phrase(
        chords,
        tuple(_melody(chords, stream)),
        names[stream.integers(len(names))],
        int(stream.integers(len(BASSES))),
        int(stream.integers(len(DRUMS))),
    )


def _melody(chords: Sequence[int], stream: np.random.Generator) -> Iterator[tuple[int, int, int]]:
    """A walk along the scale, which comes to a tone of the chord at the beginning of each bar."""
    degree = int(stream.integers(3, 8))
    for bar, chord in enumerate(chords):
        tones = [chord + tone - octave for tone in (0, 2, 4) for octave in (7, 0, -7)]
        degree = min(tones, key=lambda tone: (abs(tone - degree), tone))
        step = bar * BAR
        for length in RHYTHMS[stream.integers(len(RHYTHMS))]:
            if stream.random() >= REST:
                yield step, length, degree
            step += length
            degree = int(np.clip(degree + stream.choice((-3, -2, -1, -1, 0, 1, 1, 2, 3)), -1, 10))


def _varied(phrase: Phrase, stream: np.random.Generator) -> Phrase:
    melody = tuple(
        (step, length, degree + int(stream.choice((-2, -1, 1, 2))) if stream.random() < VARIED else degree)
        for step, length, degree in phrase.melody
    )
    return Phrase(phrase.chords, melody, phrase.accompaniment, phrase.bass, phrase.drums)


def _played(phrase: Phrase, key: Key, first: int, step: float, stream: np.random.Generator) -> Iterator[Note]:
    """The notes of a phrase that begins at the step `first`, as somebody plays them: a little late or early."""

    def note(part: str, pitch: int, at: int, steps: int, loudness: float) -> Note:
        start = max(0.0, (first + at) * step + LATE * stream.standard_normal())
        return Note(part, pitch, start, steps * step, loudness * float(stream.uniform(0.75, 1.0)))

    for at, steps, degree in phrase.melody:
        yield note("lead", min(key.pitch(degree, LOWEST_LEAD), LOWEST_LEAD + 12 + RANGE), at, steps, 1.0)
    for bar, chord in enumerate(phrase.chords):
        for at, steps, tones in ACCOMPANIMENTS[phrase.accompaniment]:
            for tone in tones:
                yield note("chords", key.pitch(chord + 2 * tone, LOWEST_CHORD), bar * BAR + at, steps, 0.4)
        for at, steps, degree in BASSES[phrase.bass]:
            yield note("bass", key.pitch(chord + degree, LOWEST_BASS), bar * BAR + at, steps, 0.8)
        for drum, places in DRUMS[phrase.drums].items():
            for at in places:
                yield note(drum, 0, bar * BAR + at, 1, 0.7)
