"""Peaks, pairs and matching of our own judges: against loops that do what the articles say, and against matplotlib."""

from collections import Counter

import numpy as np
import pytest
from matplotlib import mlab

from jobs.copyright_attack.judges import dejavu, landmarks, wang
from jobs.copyright_attack.judges.landmarks import Index, fingerprint_of


def drawn(seed: int, songs: int, hashes: int, different: int, frames: int) -> list[dict[str, np.ndarray]]:
    generator = np.random.default_rng(seed)
    return [
        fingerprint_of(generator.integers(0, different, hashes), generator.integers(0, frames, hashes))
        for _ in range(songs)
    ]


@pytest.mark.parametrize("most", [1 << 22, 7])
def test_hashes_in_line_are_those_of_a_loop(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landmarks, "MOST_HITS", most)
    songs = drawn(0, songs=3, hashes=40, different=12, frames=30)
    [query] = drawn(1, songs=1, hashes=15, different=12, frames=20)
    expected = []
    for song in songs:
        shifts = Counter(
            int(there) - int(here)
            for hash_here, here in zip(query["hashes"], query["times"], strict=True)
            for hash_there, there in zip(song["hashes"], song["times"], strict=True)
            if hash_here == hash_there
        )
        expected.append(max(shifts.values(), default=0))
    assert min(expected) > 1
    assert Index.of(songs).aligned(query["hashes"], query["times"]).tolist() == expected


def test_nothing_is_in_line_with_nothing() -> None:
    empty = fingerprint_of(np.zeros(0), np.zeros(0))
    [song] = drawn(0, 1, 5, 3, 9)
    assert Index.of([song, empty]).aligned(empty["hashes"], empty["times"]).tolist() == [0, 0]
    assert Index.of([empty]).aligned(song["hashes"], song["times"]).tolist() == [0]
    assert Index.of([song, empty]).aligned(song["hashes"], song["times"]).tolist()[1] == 0


def test_the_spectrogram_of_dejavu_is_that_of_matplotlib() -> None:
    samples = np.random.default_rng(0).integers(-3000, 3000, 5 * dejavu.SIZE).astype(np.float64)
    power, _, _ = mlab.specgram(
        samples, NFFT=dejavu.SIZE, Fs=dejavu.RATE, window=mlab.window_hanning, noverlap=dejavu.SIZE - dejavu.HOP
    )
    np.testing.assert_allclose(dejavu.decibels(samples), 10 * np.log10(power), rtol=1e-9)
    assert dejavu.decibels(np.zeros(dejavu.SIZE)).tolist() == [[0.0]] * (dejavu.SIZE // 2 + 1)


def brute_peaks(levels: np.ndarray, high: int, wide: int, floor: float) -> list[tuple[int, int]]:
    """Frame and bin of what is the largest around it."""
    bins, frames = levels.shape
    return [
        (frame, row)
        for frame in range(frames)
        for row in range(bins)
        if levels[row, frame] > floor
        and levels[row, frame]
        == levels[max(row - high, 0) : row + high + 1, max(frame - wide, 0) : frame + wide + 1].max()
    ]


def test_peaks_are_those_of_a_loop() -> None:
    levels = np.random.default_rng(0).normal(5, 10, (60, 50))
    assert list(zip(*dejavu.peaks(levels), strict=True)) == brute_peaks(levels, 10, 10, dejavu.LOUDNESS)
    magnitudes = np.abs(levels)
    many = wang.Constellation(bins=4, frames=2, density=10_000)
    assert list(zip(*wang.peaks(magnitudes, many), strict=True)) == brute_peaks(magnitudes, 4, 2, wang.QUIET)


def test_the_largest_peaks_of_each_second_are_kept() -> None:
    magnitudes = np.abs(np.random.default_rng(1).normal(size=(80, 60)))
    every = brute_peaks(magnitudes, 3, 1, wang.QUIET)
    expected = []
    for second in {frame * wang.HOP // wang.RATE for frame, _ in every}:
        inside = [each for each in every if each[0] * wang.HOP // wang.RATE == second]
        expected += sorted(inside, key=lambda each: -magnitudes[each[1], each[0]])[:5]
    assert len(expected) < len(every)
    kept = wang.peaks(magnitudes, wang.Constellation(bins=3, frames=1, density=5))
    assert list(zip(*kept, strict=True)) == sorted(expected)


def constellation(seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    points = sorted({(int(time), int(row)) for time, row in generator.integers(0, (400, 500), (120, 2))})
    times, bins = np.array(points).T
    return times, bins


def test_pairs_of_dejavu_are_those_of_a_loop() -> None:
    times, bins = constellation(0)
    expected = sorted(
        ((int(bins[one]) << 20) | (int(bins[two]) << 8) | int(times[two] - times[one]), int(times[one]))
        for one in range(len(times))
        for two in range(one + 1, min(one + 5, len(times)))
        if times[two] - times[one] <= 200
    )
    assert sorted(zip(*(each.tolist() for each in dejavu.pairs(times, bins)), strict=True)) == expected


def test_pairs_of_wang_are_those_of_a_loop() -> None:
    times, bins = constellation(1)
    expected = []
    for one in range(len(times)):
        zone = [
            two
            for two in range(one + 1, len(times))
            if 1 <= times[two] - times[one] <= 63 and abs(bins[two] - bins[one]) <= 127
        ]
        for two in zone[:10]:
            packed = (int(bins[one]) << 16) | (int(bins[two]) << 6) | int(times[two] - times[one])
            expected.append((packed, int(times[one])))
    assert sorted(zip(*(each.tolist() for each in wang.pairs(times, bins)), strict=True)) == sorted(expected)


def test_a_tone_has_its_amplitude_in_the_spectrum_of_wang() -> None:
    at = np.arange(4 * wang.SIZE)
    magnitudes = wang.spectrum(0.3 * np.sin(2 * np.pi * 50 * at / wang.SIZE))
    np.testing.assert_allclose(magnitudes[50], 0.3, rtol=1e-6)
    assert wang.spectrum(np.zeros(wang.SIZE - 1)).shape == (wang.SIZE // 2 + 1, 0)
