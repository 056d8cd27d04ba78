"""What a set of songs is, and where one comes from."""

import hashlib
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

from pydantic import Field
from torch import Tensor

from jobs.common.audio.files import Sound
from jobs.common.audio.levels import QUIET, at_loudness, quantised
from jobs.common.data.batches import permutation
from jobs.common.data.sets import FolderParams
from service.errors import FieldError, InputError

MOST_BYTES = 2 << 30  # of a set in memory
BYTES_OF_SAMPLE = 4
SHORTEST = 1.0  # seconds
THREADS = 2  # each holds a whole file


class Songs:
    """Songs of one rate, each of its own length: one channel, as a WAV of 16 bits holds it."""

    def __init__(self, name: str, rate: int, names: Sequence[str], sounds: Sequence[Tensor]) -> None:
        """name: of the set. rate: samples a second. names: of the songs. sounds: float32 (samples,) in [-1, 1] each."""
        if len(names) != len(sounds) or len(set(names)) < len(names):
            raise InputError(f"{name}: there must be one name of its own for each of {len(sounds)} songs")
        self.name, self.rate, self.names, self.sounds = name, rate, tuple(names), tuple(sounds)

    def __len__(self) -> int:
        return len(self.sounds)

    @property
    def seconds(self) -> float:
        """Of all songs together."""
        return sum(map(len, self.sounds)) / self.rate

    @cached_property
    def digest(self) -> str:
        """Tells the content from any other: for provenance."""
        digest = hashlib.sha256(json.dumps([self.rate, self.names]).encode())
        for sound in self.sounds:
            digest.update(sound.contiguous().numpy().data)
        return digest.hexdigest()

    def part(self, places: Sequence[int]) -> "Songs":
        """Some of the songs."""
        return Songs(
            self.name, self.rate, [self.names[each] for each in places], [self.sounds[each] for each in places]
        )


class Source(FolderParams):
    """How many songs of which length, and how a file becomes a song."""

    rate: int = Field(11_025, ge=4_000, le=48_000, description="samples a second that songs are brought to")
    seconds: float = Field(
        30.0, ge=SHORTEST, le=600, description="length of a song: of a longer one its middle is taken"
    )
    enrolled: int = Field(20, ge=1, le=100_000, description="songs that are in the database")
    others: int = Field(20, ge=0, le=100_000, description="songs that are not in the database")
    seed: int = Field(0, ge=0, lt=2**63, description="of the tunes, and of which songs of a folder are in the database")

    @property
    def count(self) -> int:
        return self.enrolled + self.others

    def check_size(self, name: str) -> None:
        """InputError if so many songs are too large for memory."""
        if (size := BYTES_OF_SAMPLE * self.count * self.seconds * self.rate) > MOST_BYTES:
            most, given = MOST_BYTES / 2**30, size / 2**30
            raise InputError(f"{name}: songs must take at most {most:g} GB; {self.count:,} of them take {given:.1f} GB")

    def song_of(self, sound: Sound) -> Tensor:
        """A song as all sets hold them: one rate and loudness, and its middle if it is too long. float32 (samples,)."""
        most = round(self.seconds * sound.rate)
        start = max(0, (len(sound.samples) - most) // 2)
        samples = Sound(sound.samples[start : start + most], sound.rate).at_rate(self.rate).samples
        return quantised(at_loudness(samples))


def split(name: str, files: Sequence[str], source: Source, song: Callable[[int], Tensor]) -> tuple[Songs, Songs]:
    """Songs of a folder in the database, and songs that are not: which ones, the seed says.

    name: of the set. files: names of all. song: makes one of them, by its place among the files. FieldError if there
    are fewer than asked for; InputError if two of them are the same, or one is silent.
    """
    if source.count > len(files):
        requirement = f"be at most {len(files)}, the number of songs of {name}"
        raise FieldError("data.enrolled + data.others", requirement, source.count)
    source.check_size(name)
    order = permutation(len(files), source.seed)[: source.count].tolist()
    with ThreadPoolExecutor(THREADS) as pool:
        sounds = dict(zip(order, pool.map(song, order), strict=True))
    _check_all_differ(name, files, sounds)
    enrolled, others = (
        Songs(name, source.rate, [files[place] for place in part], [sounds[place] for place in part])
        for part in (order[: source.enrolled], order[source.enrolled :])
    )
    return enrolled, others


def _check_all_differ(name: str, files: Sequence[str], sounds: dict[int, Tensor]) -> None:
    """A song that is in the database and also is not would make every threshold wrong."""
    first: dict[bytes, int] = {}
    for place, sound in sounds.items():
        if len(sound) < 1 or float(sound.abs().max()) <= QUIET:
            raise InputError(f"{name}: the middle of {files[place]!r} is silent")
        key = hashlib.sha256(sound.numpy().data).digest()
        if (same := first.setdefault(key, place)) != place:
            raise InputError(f"{name}: {files[same]!r} and {files[place]!r} are the same song")
