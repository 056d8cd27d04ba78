"""Masking against closed forms; the lapped transform undoes itself; coding is like an MP3 in what it takes away."""

import pytest
import torch

from jobs.copyright_attack.attack.coding import SIZE, coded, inverse_mdct, mdct
from jobs.copyright_attack.attack.masking import SINE, analysed, bands_of, bark_of, composed, noise_to_mask, thresholds
from jobs.copyright_attack.encodings import mp3
from tests.jobs.copyright_attack.attack.sounds import RATE, melodies


def test_the_scale_of_bands_is_that_of_the_table_of_zwicker() -> None:
    edges = {100.0: 1, 510.0: 5, 1080.0: 9, 2000.0: 13, 3700.0: 17}  # Zwicker 1961: upper edges of critical bands
    for hertz, bark in edges.items():
        assert float(bark_of(torch.tensor(hertz))) == pytest.approx(bark, abs=0.2)


def test_a_tone_hides_noise_beside_it_more_above_than_below_and_noise_hides_more_than_a_tone() -> None:
    powers = torch.full((257,), 1e-12)
    tone = powers.clone()
    tone[64] = SINE  # 1 kHz of 4 kHz
    limits, bands = thresholds(tone, RATE), bands_of(257, RATE)
    own = int(bands.members[64].argmax())
    assert int(limits.argmax()) == own
    assert limits[own + 2] > 10 * limits[own - 2]
    # Johnston: 14.5 + i dB below its power for a tone in band i, counted from 1; the spread takes a little more
    below = float(10 * (SINE / limits[own]).log10())
    assert 14.5 + own + 1 <= below <= 14.5 + own + 1 + 3
    flat = torch.full((257,), 1e-4)
    shares = flat @ bands.members / thresholds(flat, RATE)
    assert 10 * float(shares[3:-3].log10().max()) < 8  # 5.5 dB, and what the neighbours add


def test_in_silence_what_is_heard_in_quiet_is_the_limit() -> None:
    limits = thresholds(torch.zeros(257), RATE)
    assert bool((limits > 0).all())
    # most sensitive at 3 to 4 kHz (Terhardt 1979)
    hertz = (torch.linspace(0, RATE / 2, 257) @ bands_of(257, RATE).members) / bands_of(257, RATE).members.sum(0)
    assert 2500 < float(hertz[limits.argmin()]) < 4000


def test_transforms_undo_themselves() -> None:
    songs = melodies(2)
    assert torch.allclose(composed(analysed(songs), songs.shape[1]), songs, atol=1e-5)
    assert torch.allclose(inverse_mdct(mdct(songs), songs.shape[1]), songs, atol=1e-5)
    assert float(mdct(songs).square().sum()) == pytest.approx(float(songs.square().sum()), rel=1e-4)
    assert mdct(songs).shape[2] == SIZE


def test_noise_above_what_is_hidden_is_measured_in_decibels() -> None:
    songs = melodies(2)
    noise = 1e-3 * torch.randn(songs.shape, generator=torch.Generator().manual_seed(0))
    quiet, loud = noise_to_mask(songs, songs + noise, RATE), noise_to_mask(songs, songs + 10 * noise, RATE)
    assert torch.allclose(loud - quiet, torch.full((2,), 20.0), atol=0.01)


def test_coding_takes_away_what_an_mp3_takes_away() -> None:
    """Above the cut-off nothing is left; the noise is that of real files, and grows as it is told to."""
    songs = melodies(2, seconds=3.0)
    for each in songs:
        real = [float((mp3(each, RATE, kilobits)[0] - each).square().mean().sqrt()) for kilobits in (24, 8)]
        errors = [float((coded(each[None], RATE, 3800.0, noise) - each).square().mean().sqrt()) for noise in (0.1, 2)]
        assert errors[0] < real[0] < real[1] < errors[1], (errors, real)
    low = coded(songs, RATE, 1000.0, 0.5)
    spectrum = torch.fft.rfft(low).abs()
    high = spectrum[:, spectrum.shape[1] * 3 // 10 :]
    assert float(high.square().sum() / spectrum.square().sum()) < 1e-4


def test_the_gradient_of_coding_passes_the_rounding_and_stops_at_the_cut_off() -> None:
    songs = melodies(1).requires_grad_()
    weights = torch.randn(songs.shape, generator=torch.Generator().manual_seed(0))
    (coded(songs, RATE, 1000.0, 1.0) * weights).sum().backward()
    assert songs.grad is not None
    with torch.no_grad():  # the straight-through gradient is that of the low-pass alone, which is its own adjoint
        coefficients = mdct(weights)
        coefficients[:, :, (torch.arange(SIZE) + 0.5) * RATE / (2 * SIZE) > 1000] = 0
        passed = inverse_mdct(coefficients, songs.shape[1])
    inside = slice(SIZE, -SIZE)
    assert torch.allclose(songs.grad[:, inside], passed[:, inside], atol=1e-5)
