"""Attacks keep their bounds, take the peaks away, and refuse what is no sound."""

import pytest
import torch
from torch import Tensor

from jobs.common.audio.fingerprints.fingerprint import Fingerprint, FingerprintParams
from jobs.common.audio.fingerprints.spectrum import Resolution
from jobs.copyright_attack.attack.bounds import AnyBound, LpBound, MaskingBound, power_mean
from jobs.copyright_attack.attack.masking import analysed, bands_of, noise_to_mask, thresholds
from jobs.copyright_attack.attack.objectives import OverlapObjective, RemixObjective, RingObjective, prepared, survival
from jobs.copyright_attack.attack.queries import QueryParams, query
from jobs.copyright_attack.attack.search import FULL, AttackParams, attack, quantised_changes
from jobs.copyright_attack.attack.transformations import TransformationParams
from jobs.copyright_attack.attack.universal import universal
from service.errors import FieldError, InputError
from tests.jobs.copyright_attack.attack.sounds import RATE, melodies, melody

FINGERPRINTS = [Fingerprint(FingerprintParams(rate=RATE, resolutions=(Resolution(samples=512, hop=256),)))]


def whole(sounds: Tensor) -> bool:
    """Whether samples are whole numbers of 16 bits within full scale."""
    steps = sounds * FULL
    return bool(((steps - steps.round()).abs() < 1e-2).all() and (sounds.abs() <= 1).all())


@pytest.mark.parametrize("objective", [RingObjective(), OverlapObjective()], ids=lambda each: each.kind)
def test_an_attack_takes_most_peaks_away_where_noise_leaves_them(objective: RingObjective | OverlapObjective) -> None:
    songs = melodies(2)
    done = attack(songs, RATE, FINGERPRINTS, AttackParams(objective=objective, steps=40), 0.05)
    noise = 0.1 * torch.rand(songs.shape, generator=torch.Generator().manual_seed(0)) - 0.05
    assert whole(done.sounds) and float((done.sounds - songs).abs().max()) <= 0.05 + 1e-6
    assert bool((done.losses[-1] < 0.6 * done.losses[0]).all())
    left = survival(FINGERPRINTS[0], songs, done.sounds, RATE)
    assert bool((left < 0.6 * survival(FINGERPRINTS[0], songs, songs + noise, RATE)).all()), left


def test_songs_in_a_batch_come_out_as_alone() -> None:
    songs, params = melodies(2), AttackParams(steps=5)
    together = attack(songs, RATE, FINGERPRINTS, params, 0.05).sounds
    alone = torch.cat([attack(songs[[k]], RATE, FINGERPRINTS, params, 0.05).sounds for k in range(2)])
    assert float(((together - alone).abs() > 2 / FULL).float().mean()) < 1e-3  # but for rounding of Adam's first steps


@pytest.mark.parametrize("bound, epsilon", [(LpBound(p=2), 0.02), (LpBound(p=4), 0.02), (MaskingBound(), 2.0)], ids=str)
def test_other_bounds_are_kept(bound: AnyBound, epsilon: float) -> None:
    songs = melodies(2)
    done = attack(songs, RATE, FINGERPRINTS, AttackParams(bound=bound, steps=15), epsilon)
    changes = done.sounds - songs
    assert bool((done.losses[-1] < done.losses[0]).all()) and bool((changes.abs().amax(1) > 0).all())
    if isinstance(bound, LpBound):
        assert bool((power_mean(changes, bound.p) <= epsilon + 1e-5).all())
        assert power_mean(changes, 2)[0].item() == pytest.approx(float(changes[0].double().square().mean().sqrt()))
    else:
        limits = thresholds(analysed(songs).abs().square(), RATE)
        powers = bands_of(257, RATE).powers(analysed(changes).abs().square())
        over = powers / (epsilon**2 * limits)
        assert float((over > 1.5).float().mean()) < 0.03
        # as loud as noise may be at the mean of its bands: 6 dB for twice the threshold
        assert bool((noise_to_mask(songs, done.sounds, RATE) < 6.5).all())


def test_a_change_that_would_leave_full_scale_is_cut() -> None:
    song = melody(0).sign()[None] * 0.99
    done = attack(song, RATE, FINGERPRINTS, AttackParams(steps=3), 0.05)
    assert whole(done.sounds)


@pytest.mark.parametrize("epsilon", [0.05, 100 / FULL, 0.0031])
def test_rounding_keeps_a_bound_on_samples_also_of_a_sound_that_was_no_whole_number(epsilon: float) -> None:
    generator = torch.Generator().manual_seed(0)
    sounds = 1.8 * torch.rand(2, 200_000, generator=generator) - 0.9
    sounds[1] = (sounds[1] * FULL).round() / FULL
    changes = epsilon * (4 * torch.rand(sounds.shape, generator=generator) - 2).clamp(-1, 1)
    changed = sounds + quantised_changes(sounds, changes)
    assert whole(changed)
    assert float((changed - sounds).double().abs().max()) <= epsilon + 2e-7  # of float32, three times
    steps = ((changed - sounds)[1] * FULL).round()
    assert float(steps.max()) == -float(steps.min()) == int(epsilon * FULL + 1e-3), "all that the bound allows"


def test_an_attack_in_expectation_survives_better_what_it_was_made_for() -> None:
    songs = melodies(2)
    changes = TransformationParams(draws=1, gain=0.3, shift=0.02, crop=0.1, resampling=0.01, coding=0.5)
    params = AttackParams(steps=15, transformations=changes)
    first, second = (attack(songs, RATE, FINGERPRINTS, params, 0.05, seed=3).sounds for _ in range(2))
    assert torch.equal(first, second)
    assert bool((survival(FINGERPRINTS[0], songs, first, RATE) < 0.8).all())


def test_a_draw_changes_every_sound_alike() -> None:
    changes = TransformationParams(crop=0.3, resampling=0.05, coding=1.0)
    draw = changes.drawn(2 * RATE, RATE, torch.Generator().manual_seed(1))
    songs = melodies(2)
    assert torch.equal(draw(songs), draw(songs)) and draw(songs).shape[1] < 2 * RATE


def test_remix_needs_another_song_and_moves_toward_it() -> None:
    songs = melodies(2)
    with pytest.raises(FieldError, match="targets must be given for the objective remix"):
        attack(songs, RATE, FINGERPRINTS, AttackParams(objective=RemixObjective()), 0.05)
    done = attack(songs, RATE, FINGERPRINTS, AttackParams(objective=RemixObjective(), steps=10), 0.05, songs.flip(0))
    assert bool((done.losses[-1] < done.losses[0]).all())


def test_one_change_lowers_the_loss_of_songs_that_it_never_met() -> None:
    songs, params = melodies(6), AttackParams(objective=OverlapObjective(), steps=60)
    change = universal(songs[:4], RATE, FINGERPRINTS, params, 0.05, seed=0)
    assert change.shape == (2 * RATE,) and float(change.abs().max()) <= 0.05 + 1e-6
    others = songs[4:]
    noise = change[torch.randperm(len(change), generator=torch.Generator().manual_seed(0))]  # the same values
    losses = prepared(params.objective, FINGERPRINTS, others, RATE)
    assert float(losses(others + change).mean()) < 0.97 * float(losses(others + noise).mean())
    with pytest.raises(FieldError, match="bound must be linf or lp"):
        universal(songs, RATE, FINGERPRINTS, AttackParams(bound=MaskingBound()), 1.0, 0)


def test_queries_lower_a_score_and_stop_when_the_song_is_lost() -> None:
    song = melody(0)
    asked = []

    def judge(sound: Tensor) -> tuple[float, bool]:
        score = float(survival(FINGERPRINTS[0], song[None], sound[None], RATE))
        asked.append(score)
        return score, score > lost

    lost = -1.0
    done = query(song, RATE, judge, QueryParams(queries=30), seed=1)
    assert len(done.scores) == len(asked) == 30 and not done.successful
    assert done.scores[-1] < done.scores[0] and bool((done.scores.diff() <= 0).all())
    assert whole(done.sound) and float((done.sound - song).abs().max()) <= 0.05 + 1e-6

    lost = float(done.scores[5])
    again = query(song, RATE, judge, QueryParams(queries=30), seed=1)
    assert again.successful and len(again.scores) <= 6


@pytest.mark.parametrize(
    "sounds, sentence",
    [
        (torch.zeros(2, 4000), "sound 0 is silent"),
        (torch.full((1, 4000), float("nan")), "must be finite numbers"),
        (2 * torch.ones(1, 4000), "must be within"),
        (melody(0)[None, :500], "must last at least 0.064 seconds, a frame; it lasts 0.0625"),
        (torch.zeros(0, 4000), "must be float"),
        (torch.zeros(1, 4000, dtype=torch.int16), "must be float"),
        (torch.zeros(4000), "must be float"),
    ],
)
def test_what_is_no_sound_is_refused(sounds: Tensor, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        attack(sounds, RATE, FINGERPRINTS, AttackParams(), 0.05)
