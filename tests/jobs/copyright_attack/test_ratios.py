"""Levels by bisection; medians of numbers that may be infinite; sounds come back from an MP3 in their place."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import binom

from jobs.copyright_attack.clips import noise_like
from jobs.copyright_attack.encodings import aligned, mp3
from jobs.copyright_attack.measures import mixed, norms
from jobs.copyright_attack.ratios import level_lost, median, ratios
from service.errors import FieldError
from tests.jobs.copyright_attack.attack.sounds import RATE, melody


@pytest.mark.parametrize("true", [-33.3, 0.0, 12.4])
def test_a_level_is_found_to_the_tolerance_by_few_questions(true: float) -> None:
    asked = []

    def lost(level: float) -> bool:
        asked.append(level)
        return level >= true

    found = level_lost(lost, -40, 24, 1.0)
    assert true <= found <= true + 1 and len(asked) <= 1 + 16 + 2
    assert level_lost(lambda level: True, -40, 24, 1.0) == -math.inf
    assert level_lost(lambda level: False, -40, 25, 1.0) == math.inf


def test_a_song_that_is_lost_and_found_again_is_lost_at_the_lower_level() -> None:
    """As by a change that, loud enough, is itself taken for the song."""
    found = level_lost(lambda level: -7 <= level <= 9, -40, 25, 1.0)
    assert -7 <= found <= -6


def test_a_mixture_has_its_level_and_stays_within_full_scale() -> None:
    song = melody(0)
    change = torch.randn(len(song), generator=torch.Generator().manual_seed(0))
    sound = mixed(song, change, -20.0)
    assert norms(song, sound)["snr"] == pytest.approx(20, abs=1e-3)
    assert float(mixed(song, change, 20.0).abs().max()) == pytest.approx(1)


def test_norms_are_those_of_numpy() -> None:
    song = melody(0)
    noisy = noise_like("gaussian", song, song + 0.01, seed=1)
    found, change = norms(song, noisy), (noisy - song).double().numpy()
    assert found["linf"] == np.abs(change).max()
    assert found["rms"] == pytest.approx(np.sqrt(np.mean(change**2))) and found["rms"] == pytest.approx(0.01, rel=0.01)
    assert found["snr"] == pytest.approx(10 * np.log10(np.mean(song.double().numpy() ** 2) / np.mean(change**2)))
    assert norms(song, song)["snr"] == math.inf


def test_the_interval_of_a_median_holds_it_as_often_as_it_says() -> None:
    """Of 20 numbers it is that from the 6th to the 15th: 95.9 %, as the binomial says and as draws show."""
    found = median(list(range(1, 21)))
    assert (found.value, found.low, found.high, found.count) == (10.5, 6, 15, 20)
    assert 1 - 2 * binom.cdf(5, 20, 0.5) == pytest.approx(0.9586, abs=1e-4)
    generator = np.random.default_rng(0)
    held = [m.low <= 0 <= m.high for m in (median(generator.standard_normal(20).tolist()) for _ in range(1000))]
    assert 0.945 < np.mean(held) < 0.972
    assert median([1.0, math.inf, math.inf]).value == math.inf and math.isnan(median([1.0] * 5).low)
    assert median([1, 2, 3, 4, math.inf, math.inf]).high == math.inf and math.isnan(median([]).value)


def test_ratios_count_songs_that_noise_never_loses_as_infinite_and_leave_out_what_says_nothing() -> None:
    levels = {  # attack, uniform
        0: (-12.0, 0.0), 1: (-6.0, 0.0), 2: (0.0, math.inf), 3: (math.inf, 3.0), 4: (math.inf, math.inf),
        5: (-math.inf, -math.inf),
    }  # fmt: skip
    rows = [
        {"judge": "wang", "song": song, "kind": kind, "level": level}
        for song, pair in levels.items()
        for kind, level in zip(("attack", "uniform"), pair, strict=True)
    ]
    uniform, gaussian = ratios(rows)
    expected = (10 ** (6 / 20) + 10 ** (12 / 20)) / 2  # of 0, 2.0, 4.0 and infinity
    assert uniform["ratio"] == pytest.approx(expected) and uniform["songs"] == 4
    assert uniform["songs_that_say_nothing"] == 2
    assert gaussian["songs"] == 0 and gaussian["ratio"] is None


def test_an_mp3_gives_a_sound_back_in_its_place_and_worse_at_a_lower_rate() -> None:
    song = melody(1, seconds=4.0)
    errors = []
    for kilobits in (48, 16):
        decoded, written = mp3(song, RATE, kilobits)
        assert decoded.shape == song.shape and written == pytest.approx(kilobits, rel=0.1)  # and a header
        errors.append(norms(song, decoded)["snr"])
    assert errors[0] > errors[1] > 8
    with pytest.raises(FieldError, match="at most 320 kbit/s"):
        mp3(song, RATE, 400)


def test_a_sound_is_moved_back_by_what_a_decoder_is_late() -> None:
    song = melody(2)
    for late in (0, 17, 1105, -30):
        moved = torch.nn.functional.pad(song, (late, 0)) if late >= 0 else song[-late:]
        back = aligned(moved, song)
        inside = slice(100, -100)
        assert torch.equal(back[inside], song[inside])
