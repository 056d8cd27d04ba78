"""Fingerprints against torch's own transform, a convolution, scipy's filter and hashes counted one by one."""

import json

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.ndimage import maximum_filter
from torch import Tensor

from jobs.common.audio.fingerprints.fingerprint import PER_RESOLUTION, Fingerprint, FingerprintParams
from jobs.common.audio.fingerprints.pairs import BINS, STEPS, Pairing, landmarks
from jobs.common.audio.fingerprints.peaks import Neighbourhood, peaks
from jobs.common.audio.fingerprints.spectrum import Resolution, magnitudes
from service.errors import FieldError

RESOLUTIONS = [Resolution(samples=256, hop=128), Resolution(samples=256, hop=100), Resolution(samples=96, hop=96)]


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return 0.2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("resolution", RESOLUTIONS, ids=str)
def test_magnitudes_are_those_of_torch_and_of_a_convolution(resolution: Resolution) -> None:
    sounds, size = noise(3, 2000), resolution.samples
    own = magnitudes(sounds, resolution)
    hann = torch.hann_window(size, dtype=torch.float64)
    weights = (hann / hann.sum()).float()
    reference = torch.stft(sounds, size, resolution.hop, window=weights, center=False, return_complex=True).abs()
    assert own.shape == (3, resolution.bins, resolution.frames(2000))
    assert torch.allclose(own, reference, atol=1e-6)

    angles = 2 * torch.pi * torch.arange(resolution.bins)[:, None] * torch.arange(size) / size
    kernels = torch.cat([weights * angles.cos(), weights * angles.sin()])[:, None]
    parts = torch.nn.functional.conv1d(sounds[:, None], kernels, stride=resolution.hop)
    real, imaginary = parts.split(resolution.bins, 1)
    assert torch.allclose(own, torch.hypot(real, imaginary), atol=1e-5)


def test_a_sine_of_full_scale_has_half_of_it_in_its_bin() -> None:
    sine = torch.sin(2 * torch.pi * 32 * torch.arange(2048) / 256)[None]
    assert magnitudes(sine, RESOLUTIONS[0])[0, 32].numpy() == pytest.approx(0.5, abs=1e-4)


def test_gradients_of_magnitudes_are_those_of_autograd_and_finite_at_silence() -> None:
    sounds, resolution = noise(2, 900), RESOLUTIONS[0]
    weights = torch.rand(2, resolution.bins, resolution.frames(900), generator=torch.Generator().manual_seed(1))
    for each in (sounds, torch.zeros(2, 900)):
        own = each.clone().requires_grad_()
        (magnitudes(own, resolution) * weights).sum().backward()
        assert own.grad is not None and own.grad.isfinite().all()
        if each is sounds:
            taper = torch.hann_window(256) / 128
            plain = each.clone().requires_grad_()
            spectrum = torch.stft(plain, 256, 128, window=taper, center=False, return_complex=True)
            (spectrum.abs() * weights).sum().backward()
            assert plain.grad is not None and torch.allclose(own.grad, plain.grad, atol=1e-6)


def test_sounds_shorter_than_a_frame_are_refused() -> None:
    with pytest.raises(FieldError, match="samples must be at most 255"):
        magnitudes(noise(1, 255), RESOLUTIONS[0])


@pytest.mark.parametrize("neighbourhood", [(5, 3), (0, 0), (4, 0), (0, 2), (40, 40)])
def test_peaks_are_those_of_a_maximum_filter(neighbourhood: tuple[int, int]) -> None:
    maps = noise(2, 33, 21).abs()
    maps[0, 10, 5:8] = 3.0  # equal neighbours
    bins, frames = neighbourhood
    own = peaks(maps, Neighbourhood(bins=bins, frames=frames), 0.05)
    for each, answer in zip(maps.numpy(), own.numpy(), strict=True):
        highest = maximum_filter(each, (2 * bins + 1, 2 * frames + 1), mode="constant", cval=-np.inf)
        assert np.array_equal(answer, (each == highest) & (each > 0.05 * each.max()))


def test_silence_has_no_peak() -> None:
    fingerprint = Fingerprint()
    assert not any(each.any() for each in fingerprint.peaks(torch.zeros(1, 4000)))
    assert len(fingerprint.hashes(torch.zeros(4000))[0]) == 0


@pytest.mark.parametrize(
    "pairing",
    [Pairing(fan_out=3, bins=6, shortest=1, longest=9), Pairing(fan_out=40, bins=50, shortest=0 + 2, longest=40)],
)
def test_landmarks_are_those_that_are_counted_one_by_one(pairing: Pairing) -> None:
    marks = noise(40, 120) > 0.4
    hashes, times = landmarks(marks, pairing)
    expected = []
    places = [(int(frame), int(bin_)) for frame, bin_ in marks.T.nonzero()]
    for frame, bin_ in places:
        zone = [
            (later, other)
            for later, other in places
            if pairing.shortest <= later - frame <= pairing.longest and abs(other - bin_) <= pairing.bins
        ]
        expected += [((bin_, other, later - frame), frame) for later, other in sorted(zone)[: pairing.fan_out]]
    unpacked = [(int(h) // (BINS * STEPS), int(h) // STEPS % BINS, int(h) % STEPS) for h in hashes]
    assert len(expected) > 50
    assert list(zip(unpacked, times.tolist(), strict=True)) == expected


def test_a_part_of_a_sound_has_its_hashes_at_a_constant_offset() -> None:
    fingerprint = Fingerprint(FingerprintParams(rate=8000))
    song = noise(60_000)
    hop = fingerprint.params.resolutions[0].hop
    hashes, times = fingerprint.hashes(song)
    part, part_times = fingerprint.hashes(song[10 * hop : 60 * hop])
    assert len(part) > 100 and part.max() >= PER_RESOLUTION  # of both resolutions
    known = set(zip(hashes.tolist(), times.tolist(), strict=True))
    found = [
        (hash_, time + 10 * hop // fingerprint.hop) in known
        for hash_, time in zip(part.tolist(), part_times.tolist(), strict=True)
    ]
    assert sum(found) > 0.85 * len(found)  # but for those at the cut
    assert bool((hashes.diff() >= 0).all())


def test_a_fingerprint_is_made_from_what_its_card_says() -> None:
    params = FingerprintParams(rate=16_000, resolutions=(Resolution(samples=512, hop=128),), floor=0.01)
    again = Fingerprint.of(json.loads(json.dumps(params.build().arguments)))
    assert again.params == params


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        ({"rate": 1}, "rate"),
        ({"resolutions": []}, "resolutions"),
        ({"resolutions": [{"samples": 512, "hop": 200}, {"samples": 512, "hop": 300}]}, "multiples of the least, 200"),
        ({"resolutions": [{"samples": 64, "hop": 65}]}, "hop must be at most samples, 64"),
        ({"pairing": {"shortest": 9, "longest": 3}}, "longest must be at least shortest, 9"),
        ({"floor": float("nan")}, "floor"),
        ({"other": 1}, "other"),
    ],
)
def test_arguments_out_of_bounds_are_refused_by_name(arguments: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        Fingerprint.of(arguments)
