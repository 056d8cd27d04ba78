"""A database of songs: which song a sound is from, and where in it; or that it is from none.

Sources: Wang 2003, "An industrial-strength audio search algorithm", section 2.3 (hashes that agree, and the histogram
of the differences of their times); the threshold is that of split conformal prediction (Vovk et al. 2005; Papadopoulos
et al. 2002): of sounds that are exchangeable with those that calibrated it, at most the stated share is taken for a
song.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor, nn

from jobs.common.audio.fingerprints.fingerprint import Fingerprint
from service.errors import FieldError, InputError, ModelError

TOLERANCE = 1  # by how many units two times may differ: excerpts begin between two frames
FEWEST = 5  # hashes that must agree before there is a threshold: as many as audfprint asks for
MOST_ENTRIES = 1 << 27  # hashes of a database
MOST_SONGS = 1 << 20
MOST_OUTSIDE = 1 << 20  # sounds that calibrated it
MOST_PAIRS = 1 << 22  # of a query and the database that are counted: the hashes that are everywhere are left out first
NONE = -1


@dataclass(frozen=True)
class Match:
    """What a database says of a sound.

    song: its place; None if it is in none. best: the song whose hashes agree most, also where these are too few; NONE
    if no hash agrees. aligned: hashes that agree with it at one place. hashes: of the sound. confidence: the share of
    sounds from outside of the database that agree less with their best song, counting this one with them; 0 if the
    database is not calibrated. seconds: where in the best song the sound begins. runner_up, runner_up_aligned: the next
    song; NONE and 0 if there is none.
    """

    song: int | None
    best: int
    aligned: int
    hashes: int
    confidence: float
    seconds: float
    runner_up: int
    runner_up_aligned: int

    def moved(self, seconds: float) -> "Match":
        """The same of a sound that begins so much later, or earlier below 0."""
        return replace(self, seconds=self.seconds + seconds) if self.best != NONE else self


class Database(nn.Module):
    """Hashes of songs, by hash; the longest of the histograms decides. It has buffers alone."""

    hashes: Tensor
    """int64 (entries,), sorted"""
    songs: Tensor
    """int32 (entries,)"""
    times: Tensor
    """int32 (entries,), in units of the fingerprint's hop"""
    lengths: Tensor
    """int64 (songs,), in samples"""
    outside: Tensor
    """int32 (sounds,), sorted: what sounds from outside agree with their best song"""
    threshold: Tensor
    """int64: a sound whose hashes agree more often is from the song"""

    def __init__(self, fingerprint: Fingerprint, entries: int, songs: int, outside: int = 0) -> None:
        """entries, songs, outside: how many there are. FieldError if it is more than any database has."""
        super().__init__()
        for name, value, most in (
            ("entries", entries, MOST_ENTRIES),
            ("songs", songs, MOST_SONGS),
            ("outside", outside, MOST_OUTSIDE),
        ):
            if not 0 <= value <= most:
                raise FieldError(name, f"be from 0 to {most:,}", value)
        self.fingerprint = fingerprint
        self.register_buffer("hashes", torch.zeros(entries, dtype=torch.int64))
        self.register_buffer("songs", torch.zeros(entries, dtype=torch.int32))
        self.register_buffer("times", torch.zeros(entries, dtype=torch.int32))
        self.register_buffer("lengths", torch.zeros(songs, dtype=torch.int64))
        self.register_buffer("outside", torch.zeros(outside, dtype=torch.int32))
        self.register_buffer("threshold", torch.tensor(FEWEST - 1))

    @classmethod
    def built(cls, fingerprint: Fingerprint, sounds: Sequence[Tensor]) -> Self:
        """The database of songs (samples,) each. InputError if there are none or one has no hash."""
        return cls.of_hashes(fingerprint, [fingerprint.hashes(sound) for sound in sounds], [*map(len, sounds)])

    @classmethod
    def of_hashes(
        cls, fingerprint: Fingerprint, hashes: Sequence[tuple[Tensor, Tensor]], lengths: Sequence[int]
    ) -> Self:
        """The same from the hashes and times of each song, as the fingerprint answers, and its samples."""
        if not hashes:
            raise InputError("a database must have a song at least; it has none")
        if empty := [place for place, (each, _) in enumerate(hashes) if not len(each)]:
            raise InputError(f"song {empty[0]} has no hashes: it is silent, or too short for its pairs of peaks")
        counts = torch.tensor([len(each) for each, _ in hashes])
        database = cls(fingerprint, int(counts.sum()), len(hashes))
        joined, order = torch.cat([each for each, _ in hashes]).sort(stable=True)
        database.hashes = joined
        database.songs = torch.arange(len(hashes), dtype=torch.int32).repeat_interleave(counts)[order]
        database.times = torch.cat([times for _, times in hashes]).int()[order]
        database.lengths = torch.tensor(lengths)
        return database.eval()

    def __len__(self) -> int:
        """Songs."""
        return len(self.lengths)

    @property
    def rate(self) -> int:
        """Samples a second."""
        return self.fingerprint.rate

    @property
    def arguments(self) -> dict[str, Any]:
        """What `database` builds one like it from, as JSON."""
        sizes = {"entries": len(self.hashes), "songs": len(self), "outside": len(self.outside)}
        return {"fingerprint": self.fingerprint.arguments, **sizes}

    def check(self) -> None:
        """ModelError if its buffers, which may be a stranger's, are not as a database has them."""
        count = len(self)
        if not count or not bool((self.lengths > 0).all()):
            raise ModelError("a database must have songs of one sample at least")
        if len(self.hashes) and not bool((self.hashes.diff() >= 0).all()):
            raise ModelError("the hashes of a database must be sorted; these are not")
        if len(self.songs) and not 0 <= int(self.songs.min()) <= int(self.songs.max()) < count:
            raise ModelError(f"the songs of a database must be from 0 to {count - 1}; some are not")
        ends = self.lengths[self.songs.long()]
        if not bool(((self.times >= 0) & (self.times.long() * self.fingerprint.hop < ends)).all()):
            raise ModelError("the times of a database must be within its songs; some are not")
        if not bool((self.outside.diff() >= 0).all()) or int(self.threshold) < 0:
            raise ModelError("what a database was calibrated with must be sorted, and its threshold from 0 on")

    # ---- identification ----------------------------------------------------------------------------------------------

    def forward(self, sounds: Tensor) -> Tensor:
        """How many hashes of each sound agree with each song: sounds (batch, samples) to int64 (batch, songs)."""
        return torch.stack([self._histogram(*self.fingerprint.hashes(sound)).aligned for sound in sounds])

    def aligned(self, hashes: Tensor, times: Tensor) -> Tensor:
        """How many hashes agree with each song at one place: int64 (count,) each to int64 (songs,)."""
        return self._histogram(hashes, times).aligned

    def identify(self, sound: Tensor) -> Match:
        """sound: float (samples,) in [-1, 1]. FieldError if it is shorter than a frame of the fingerprint."""
        return self.identify_hashes(*self.fingerprint.hashes(sound))

    def identify_hashes(self, hashes: Tensor, times: Tensor) -> Match:
        """As `identify`, from what the fingerprint answers: int64 (count,) each, in any order."""
        histogram = self._histogram(hashes, times)
        best, aligned = _largest(histogram.aligned)
        if not aligned:
            return Match(None, NONE, 0, len(hashes), 0.0, 0.0, NONE, 0)
        others = histogram.aligned.clone()
        others[best] = 0
        runner_up, runner_up_aligned = _largest(others)
        return Match(
            best if aligned > int(self.threshold) else None,
            best,
            aligned,
            len(hashes),
            self.confidence(aligned),
            histogram.offset(best) * self._seconds,
            runner_up if runner_up_aligned else NONE,
            runner_up_aligned,
        )

    @property
    def _seconds(self) -> float:
        """Of a unit of time."""
        return self.fingerprint.hop / self.rate

    def confidence(self, aligned: int) -> float:
        """The share of sounds from outside that agree less with their best song than so many hashes, this one counted
        among them: one minus the p-value of split conformal prediction. 0 without calibration.
        """
        below = int(torch.searchsorted(self.outside, torch.tensor(aligned, dtype=torch.int32)))
        return below / (len(self.outside) + 1)

    def _histogram(self, hashes: Tensor, times: Tensor) -> "_Histogram":
        """Which hashes agree, by song and by the difference of their times."""
        device = hashes.device
        first = torch.searchsorted(self.hashes, hashes)
        counts = _bounded(torch.searchsorted(self.hashes, hashes, right=True) - first)
        query = torch.arange(len(hashes), device=device).repeat_interleave(counts)
        # the places of the entries of each hash: from its first on
        begins = (counts.cumsum(0) - counts).repeat_interleave(counts)
        places = first[query] + torch.arange(len(query), device=device) - begins
        if not len(places):
            return _Histogram(torch.zeros(len(self), dtype=torch.int64, device=device), *[torch.zeros(0)] * 4)
        offsets = self.times[places] - times[query]
        least = int(offsets.min())
        width = int(offsets.max()) - least + 1 + TOLERANCE  # so that no window reaches into another song
        keys, occurrences = (self.songs[places].long() * width + (offsets - least)).unique(return_counts=True)  # type: ignore[no-untyped-call]
        totals = torch.cat([occurrences.new_zeros(1), occurrences.cumsum(0)])
        lower = torch.searchsorted(keys, keys - TOLERANCE)
        upper = torch.searchsorted(keys, keys + TOLERANCE, right=True)
        windows = totals[upper] - totals[lower]
        owners = keys // width
        aligned = torch.zeros(len(self), dtype=torch.int64, device=device)
        aligned.scatter_reduce_(0, owners, windows, "amax")
        return _Histogram(aligned, owners, keys % width + least, occurrences, windows)

    # ---- calibration -------------------------------------------------------------------------------------------------

    def calibrate(self, sounds: Sequence[Tensor], false_alarms: float) -> None:
        """Set the threshold above which a sound is from a song; it is FEWEST hashes at least.

        sounds: (samples,) each, from no song of the database, each at least as long as those that it will be asked
        about: of a shorter one fewer hashes agree by chance. false_alarms: the share of such sounds that may be taken
        for a song. InputError if there are too few of them to say: 1 / false_alarms - 1 at least.
        """
        self.calibrate_by([self.identify(sound).aligned for sound in sounds], false_alarms)

    def calibrate_by(self, aligned: Sequence[int], false_alarms: float) -> None:
        """As `calibrate`, by what such sounds agree with their best song."""
        outside = torch.tensor(sorted(aligned), dtype=torch.int32)
        self.threshold = torch.tensor(max(FEWEST - 1, conformal_threshold(outside.tolist(), false_alarms)))
        self.outside = outside

    @property
    def alarms(self) -> int:
        """How many of the sounds that calibrated it are above the threshold."""
        return int((self.outside > self.threshold).sum())


@dataclass(frozen=True)
class _Histogram:
    """aligned: int64 (songs,), the largest window of each song. The others are of each difference of times of each song
    that occurs: the song, the difference, how often it occurs, and how often it or a neighbour does.
    """

    aligned: Tensor
    owners: Tensor
    offsets: Tensor
    occurrences: Tensor
    windows: Tensor

    def offset(self, song: int) -> float:
        """Where in a song a sound begins, in units of time: the mean over its largest window, the first of equals."""
        mine = self.owners == song
        offsets, occurrences, windows = self.offsets[mine], self.occurrences[mine], self.windows[mine]
        middle = offsets[_largest(windows)[0]]
        near = (offsets - middle).abs() <= TOLERANCE
        weights = occurrences[near].double()
        return float((offsets[near] * weights).sum() / weights.sum())


def conformal_threshold(outside: Sequence[int], false_alarms: float) -> int:
    """What at most a share `false_alarms` of new sounds exceeds, on average over draws of the sounds that calibrate.

    outside: what these reach, sorted. The ceil((n + 1)(1 - false_alarms))-th of n. InputError if there are too few.
    """
    if not 0 < false_alarms < 1:
        raise FieldError("false_alarms", "be above 0 and below 1", false_alarms)
    count = len(outside)
    place = math.ceil((count + 1) * (1 - false_alarms) - 1e-9)
    if place > count:
        least = math.ceil(1 / false_alarms - 1 - 1e-9)
        raise InputError(
            f"a threshold for {false_alarms:g} false alarms needs {least:,} sounds at least that are not in the "
            f"database; there are {count:,}"
        )
    return outside[place - 1]


def _largest(values: Tensor) -> tuple[int, int]:
    """Place and value of the largest of whole numbers (count,), of equals the first."""
    value = values.max()
    return int((values == value).nonzero()[0]), int(value)


def _bounded(counts: Tensor) -> Tensor:
    """How many entries of each hash are looked at: all, but none of the most common hashes where these are too many."""
    ordered = counts.sort().values
    fit = int((ordered.cumsum(0) <= MOST_PAIRS).sum())
    return counts if fit == len(counts) else counts * (counts < ordered[fit])


def database(fingerprint: Mapping[str, Any], entries: int, songs: int, outside: int = 0) -> Database:
    """An empty database, from what a card says."""
    return Database(Fingerprint.of(fingerprint), entries, songs, outside)


ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {"database": database}
