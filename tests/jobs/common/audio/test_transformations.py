"""Random changes to sounds, levels, and the pitch of known voices."""

import math

import pytest
import torch
from torch import Tensor

from jobs.common.audio.levels import at_loudness, high_pass, quantised
from jobs.common.audio.pitch import fundamental, repetition
from jobs.common.audio.transformations import TransformationParams, mask, moved

RATE = 16_000


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def voice(hertz: float, seconds: float = 0.5) -> Tensor:
    """Ten harmonics with falling amplitudes."""
    at = torch.arange(round(seconds * RATE), dtype=torch.float64) / RATE
    return sum(((2 * math.pi * hertz * k * at + k).sin() / k for k in range(1, 11)), torch.zeros(len(at))).float()


def test_nothing_is_changed_where_nothing_is_asked() -> None:
    nothing = TransformationParams(shift=0, speed=0, gain=0, noise=0)
    sounds = torch.randn(3, 100)
    assert nothing.apply(sounds, RATE, stream()) is sounds
    mels = torch.randn(3, 8, 10)
    assert nothing.apply_to_mels(mels, 0.01, -10.0, stream()) is mels


def test_a_shift_is_a_whole_number_of_samples_and_each_sound_has_its_own() -> None:
    sounds = torch.randn(20, 50)
    shifted = moved(sounds, 5, 0.0, stream())
    shifts = []
    for before, after in zip(sounds, shifted, strict=True):
        shifts += [by for by in range(-5, 6) if torch.equal(after, before.roll(-by))]
    assert len(shifts) == 20 and len(set(shifts)) > 5
    short = moved(sounds[:, :9], 1000, 0.5, stream())  # farther than it is long
    assert short.shape == (20, 9) and bool(torch.isfinite(short).all())


def test_speed_changes_pitch_by_at_most_its_share() -> None:
    sounds = voice(200.0).expand(10, -1)
    for each in moved(sounds, 0, 0.1, stream()):
        hertz = fundamental(each, RATE)
        assert hertz is not None and 178 < hertz < 222
    assert fundamental(moved(sounds, 0, 0.1, stream())[0], RATE) != pytest.approx(200, abs=0.5)


def test_a_mask_is_one_run_of_zeros_no_longer_than_asked() -> None:
    for row in mask(200, 40, 0.25, stream()):
        zeros = (row == 0).nonzero().flatten().tolist()
        assert len(zeros) <= 11 and (not zeros or zeros == list(range(zeros[0], zeros[0] + len(zeros))))


def test_masks_and_gain_and_noise() -> None:
    sounds = torch.ones(50, 400)
    louder = TransformationParams(shift=0, speed=0, gain=0.2, noise=0).apply(sounds, RATE, stream())
    assert bool(((louder >= 0.8) & (louder <= 1.2)).all()) and float(louder[:, 0].std()) > 0.05
    noisy = TransformationParams(shift=0, speed=0, gain=0, noise=0.01).apply(sounds, RATE, stream()) - sounds
    assert float(noisy.std()) == pytest.approx(0.01, rel=0.05)
    silent = TransformationParams(shift=0, speed=0, gain=0, noise=0, time_mask=0.5).apply(sounds, RATE, stream())
    assert set(silent.unique().tolist()) == {0.0, 1.0}
    banded = TransformationParams(shift=0, speed=0, gain=0, noise=0, frequency_mask=0.3)
    silenced = (torch.fft.rfft(banded.apply(torch.randn(20, 400), RATE, stream())).abs() < 1e-4).sum(1)
    assert int(silenced.max()) > 10 and int(silenced.max()) <= 0.3 * 201 + 1
    mels = banded.apply_to_mels(torch.zeros(4, 20, 5), 0.01, -9.0, stream())
    assert set(mels.unique().tolist()) == {0.0, -9.0}


def test_low_frequencies_are_taken_out() -> None:
    at = torch.arange(RATE) / RATE
    low, high = (2 * math.pi * 20 * at).sin(), (2 * math.pi * 200 * at).sin()
    passed = high_pass((low + high)[None], RATE, 50.0)[0]
    assert float((passed - high).abs().max()) < 1e-4
    assert torch.allclose(high_pass(high[None], RATE, 0.0)[0], high, atol=1e-5)


def test_loudness_has_the_gradient_of_finite_differences() -> None:
    sounds = torch.randn(2, 30, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: at_loudness(high_pass(x, 100, 10.0)), (sounds,), atol=1e-6)
    assert float((quantised(torch.linspace(-2, 2, 99)) - torch.linspace(-2, 2, 99).clamp(-1, 1)).abs().max()) < 2e-5


@pytest.mark.parametrize("hertz", [60.0, 110.0, 233.3, 440.0])
def test_the_pitch_of_a_voice_is_its_fundamental(hertz: float) -> None:
    noisy = voice(hertz) + 0.02 * torch.randn(RATE // 2)
    assert fundamental(noisy, RATE) == pytest.approx(hertz, rel=0.01)


def test_noise_and_what_is_too_short_have_no_pitch() -> None:
    assert fundamental(torch.randn(RATE), RATE) is None
    assert fundamental(torch.randn(100), RATE) is None
    assert fundamental(torch.zeros(RATE), RATE) is None


@pytest.mark.parametrize("hertz", [63.4, 253.6, 1014.4])
def test_a_sound_repeats_itself_as_much_as_it_has_of_its_harmonics(hertz: float) -> None:
    harmonics = voice(hertz)
    again = repetition(harmonics / harmonics.std() + torch.randn(len(harmonics), generator=stream()), RATE)
    assert again is not None and again.hertz == pytest.approx(hertz, rel=0.02)
    assert again.strength == pytest.approx(0.5, abs=0.06), "as much power as the noise"
    assert repetition(torch.zeros(RATE), RATE) is None and repetition(harmonics[:100], RATE) is None
