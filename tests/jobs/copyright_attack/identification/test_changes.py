"""What happens to excerpts: lengths, decibels and hertz that are measured."""

import numpy as np
import pytest

from jobs.copyright_attack.identification.changes import excerpt, faster, higher, with_noise

RATE = 8_000


def tone(hertz: float, seconds: float = 2.0) -> np.ndarray:
    return np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE).astype(np.float32)


def loudest(sound: np.ndarray) -> float:
    """The frequency with most power, in hertz."""
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound))))
    return float(spectrum.argmax()) * RATE / len(sound)


def test_an_excerpt_is_a_part_from_anywhere() -> None:
    sound = np.arange(100, dtype=np.float32)
    starts = set()
    for seed in range(300):
        part = excerpt(sound, 10, 9.0, np.random.default_rng(seed))
        assert np.array_equal(part, np.arange(part[0], part[0] + 90))
        starts.add(int(part[0]))
    assert starts == set(range(11))
    assert np.array_equal(excerpt(sound, 10, 20.0, np.random.default_rng(0)), sound)


@pytest.mark.parametrize("decibels", [-20.0, 0.0, 30.0])
def test_noise_has_the_power_that_is_asked_for(decibels: float) -> None:
    sound = tone(440)
    mixture = with_noise(sound, decibels, np.random.default_rng(0)).astype(np.float64)
    noise = np.random.default_rng(0).standard_normal(len(sound))
    (of_sound, of_noise), residual, *_ = np.linalg.lstsq(np.stack([sound, noise], 1), mixture)
    powers = [np.square(each).mean() for each in (of_sound * sound, of_noise * noise)]
    assert residual[0] < 1e-8 and 10 * np.log10(powers[0] / powers[1]) == pytest.approx(decibels, abs=0.01)
    assert np.abs(mixture).max() <= 1 + 1e-6
    assert not with_noise(np.zeros(100, np.float32), decibels, np.random.default_rng(0)).any()


@pytest.mark.parametrize("percent", [-20.0, -1.0, 0.0, 4.0, 50.0])
def test_what_is_faster_is_shorter_and_higher(percent: float) -> None:
    changed = faster(tone(500), percent)
    assert len(changed) == round(2 * RATE / (1 + percent / 100)) and changed.dtype == np.float32
    assert loudest(changed) == pytest.approx(500 * (1 + percent / 100), abs=1.0)


@pytest.mark.parametrize("semitones", [-5.0, -0.25, 0.5, 12.0])
def test_what_is_higher_is_as_long(semitones: float) -> None:
    changed = higher(tone(500), semitones)
    assert len(changed) == 2 * RATE and changed.dtype == np.float32
    assert loudest(changed) == pytest.approx(500 * 2 ** (semitones / 12), abs=2.0)
    inside = changed[RATE // 2 : -RATE // 2]
    assert np.sqrt(2 * np.square(inside).mean()) == pytest.approx(1.0, abs=0.1)


def test_nothing_is_changed_where_nothing_is_asked_for() -> None:
    short = tone(500, 0.05)
    assert higher(short, 3.0) is short and np.allclose(faster(short, 0.0), short, atol=1e-6)
    assert np.array_equal(higher(tone(500), 0.0), tone(500))
