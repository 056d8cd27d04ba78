"""Losses that are gathered at the peaks against those of whole maps; gradients against differences."""

import math

import pytest
import torch
from scipy.ndimage import maximum_filter

from jobs.common.audio.fingerprints.fingerprint import Fingerprint, FingerprintParams
from jobs.common.audio.fingerprints.peaks import Neighbourhood
from jobs.common.audio.fingerprints.spectrum import Resolution, magnitudes
from jobs.copyright_attack.attack.losses import smoothed_maximum
from jobs.copyright_attack.attack.objectives import (
    AnyObjective,
    AttackedFingerprint,
    OverlapObjective,
    RemixObjective,
    RingObjective,
    prepared,
    survival,
)
from tests.jobs.copyright_attack.attack.full_maps import log_map, ring_loss
from tests.jobs.copyright_attack.attack.sounds import RATE, melodies

FINE = Resolution(samples=256, hop=128)
FINGERPRINT = Fingerprint(
    FingerprintParams(rate=RATE, resolutions=(FINE,), neighbourhood=Neighbourhood(bins=5, frames=2))
)
NOISE = 0.02 * torch.randn(3, 2 * RATE, generator=torch.Generator().manual_seed(9))


def test_the_smoothed_maximum_goes_from_the_mean_to_the_maximum() -> None:
    values = torch.tensor([[1.0, 3.0, 2.0, -torch.inf]])
    assert smoothed_maximum(values, 0.0).item() == pytest.approx(2.0)
    assert smoothed_maximum(values, 80.0).item() == pytest.approx(3.0)
    weights = [math.exp(each) for each in (1, 3, 2)]
    by_hand = (weights[0] + 3 * weights[1] + 2 * weights[2]) / sum(weights)
    assert smoothed_maximum(values, 1.0).item() == pytest.approx(by_hand, rel=1e-6)


@pytest.mark.parametrize("alpha", [1.0, 8.0])
def test_the_ring_loss_and_its_gradient_are_those_of_the_whole_map(alpha: float) -> None:
    songs, objective = melodies(3), RingObjective(alpha=alpha)
    own, plain = (songs + NOISE).requires_grad_(), (songs + NOISE).requires_grad_()
    losses = prepared(objective, [FINGERPRINT], songs, RATE)(own)
    [peaks] = FINGERPRINT.peaks(songs)
    expected = ring_loss(log_map(plain, FINE), peaks, objective.outer, objective.inner, objective.margin, alpha)
    assert torch.allclose(losses, expected, rtol=1e-4) and bool((losses > 0.05).all())
    losses.sum().backward()
    expected.sum().backward()
    assert own.grad is not None and plain.grad is not None
    assert float((own.grad - plain.grad).norm()) < 1e-3 * float(plain.grad.norm())


def test_remix_adds_the_loss_toward_the_other_song_with_the_maxima_swapped() -> None:
    songs = melodies(3)
    others, objective = songs.roll(1, 0), RemixObjective(weight=0.7)
    losses = prepared(objective, [FINGERPRINT], songs, RATE, others)(songs + NOISE)
    maps, [own], [other] = log_map(songs + NOISE, FINE), FINGERPRINT.peaks(songs), FINGERPRINT.peaks(others)
    settings = (objective.outer, objective.inner, objective.margin, objective.alpha)
    away, toward = ring_loss(maps, own, *settings), ring_loss(maps, other, *settings, sign=-1)
    assert torch.allclose(losses, away + 0.7 * (toward - objective.margin), rtol=1e-4, atol=1e-5)


def test_the_overlap_is_the_magnitude_at_common_peaks_as_a_filter_of_scipy_finds_them() -> None:
    songs = melodies(3)
    losses = prepared(OverlapObjective(), [FINGERPRINT], songs, RATE)(songs + NOISE)
    [before] = FINGERPRINT.peaks(songs)
    for place, loss in enumerate(losses.tolist()):
        values = magnitudes(songs + NOISE, FINE)[place].numpy()
        after = (values == maximum_filter(values, (11, 5), mode="nearest")) & (values > 1e-3 * values.max())
        common = before[place].numpy() & after
        expected = sum(math.log1p(1e5 * each) for each in values[common]) / int(before[place].sum())
        assert 0.1 < common.sum() / before[place].sum() < 1
        assert loss == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    "objective", [RingObjective(), RemixObjective(), OverlapObjective()], ids=lambda each: each.kind
)
def test_gradients_are_those_of_finite_differences(objective: AnyObjective) -> None:
    songs = melodies(1).double()
    targets = melodies(2)[1:].double() if objective.kind == "remix" else None
    loss = prepared(objective, [FINGERPRINT], songs, RATE, targets)
    at = (songs + NOISE[:1]).requires_grad_()
    (gradient,) = torch.autograd.grad(loss(at).sum(), [at])
    direction = torch.randn(at.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    with torch.no_grad():
        step = 1e-8
        slope = float((loss(at + step * direction) - loss(at - step * direction)).sum()) / (2 * step)
    assert float((gradient * direction).sum()) == pytest.approx(slope, rel=1e-4)


def test_the_loss_of_a_song_does_not_depend_on_what_is_beside_it() -> None:
    songs = melodies(3)
    together = prepared(RingObjective(), [FINGERPRINT], songs, RATE)(songs + NOISE)
    alone = [prepared(RingObjective(), [FINGERPRINT], songs[[k]], RATE)((songs + NOISE)[[k]])[0] for k in range(3)]
    assert torch.allclose(together, torch.stack(alone), rtol=1e-5)


def test_ensembles_and_resolutions_are_averaged_each_at_its_own_rate() -> None:
    songs = melodies(2)
    other = Fingerprint(FingerprintParams(rate=6000, resolutions=(Resolution(samples=512, hop=256), FINE)))
    single = [
        AttackedFingerprint(RingObjective(), each, songs, RATE)(songs + NOISE[:2]) for each in (FINGERPRINT, other)
    ]
    both = prepared(RingObjective(), [FINGERPRINT, other], songs, RATE)(songs + NOISE[:2])
    assert torch.allclose(both, (single[0] + single[1]) / 2)


def test_survival_counts_the_peaks_that_are_left() -> None:
    songs = melodies(2)
    assert survival(FINGERPRINT, songs, songs, RATE).tolist() == [1.0, 1.0]
    assert bool((survival(FINGERPRINT, songs, songs.flip(0), RATE) < 0.2).all())
    assert bool(survival(FINGERPRINT, 0 * songs, songs, RATE).isnan().all())
