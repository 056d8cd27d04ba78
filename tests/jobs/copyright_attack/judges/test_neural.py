"""The neural fingerprint: its loss and matching against loops, its training, and the perturbations of it."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from jobs.common.audio.transformations import TransformationParams
from jobs.common.data.music import MusicParams
from jobs.common.training.engine import Engine, EngineParams
from jobs.copyright_attack.judges.neural.encoder import RATE, SEGMENT, Encoder, contrastive_loss, segments
from jobs.copyright_attack.judges.neural.judge import NeuralJudge, alignment
from jobs.copyright_attack.judges.neural.params import AdversarialParams, NeuralParams
from jobs.copyright_attack.judges.neural.training import ContrastiveStep, Pairs, trained, unlike
from service.errors import FieldError, InputError
from tests.jobs.copyright_attack.judges.music import arrays, tunes

SMALL = NeuralParams(music=MusicParams(enrolled=6, others=1, seconds=5.0, seed=7), updates=4, pairs=6)


@pytest.fixture
def encoder() -> Encoder:
    torch.manual_seed(0)
    return Encoder().eval()


def unit(seed: int, count: int, width: int = 8) -> np.ndarray:
    points = np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def test_the_loss_is_that_of_the_article() -> None:
    first, second = (torch.from_numpy(unit(seed, 5)) for seed in (0, 1))
    points = torch.cat([first, second]).double().tolist()

    def likeness(one: int, other: int) -> float:
        return math.exp(sum(a * b for a, b in zip(points[one], points[other], strict=True)) / 0.1)

    losses = [
        -math.log(likeness(i, (i + 5) % 10) / sum(likeness(i, k) for k in range(10) if k != i)) for i in range(10)
    ]
    assert float(contrastive_loss(first, second, 0.1)) == pytest.approx(sum(losses) / 10, rel=1e-5)


@pytest.mark.parametrize(("longer", "shorter"), [(9, 4), (4, 9), (5, 5), (3, 1)])
def test_the_alignment_is_that_of_a_loop(longer: int, shorter: int) -> None:
    query, song = unit(0, longer), unit(1, shorter)
    long, short = (query, song) if longer > shorter else (song, query)
    means = [
        np.mean([float(long[shift + place] @ short[place]) for place in range(len(short))])
        for shift in range(len(long) - len(short) + 1)
    ]
    assert alignment(query, song) == pytest.approx(max(max(means), 0.0), abs=1e-6)


def test_silence_is_alike_to_nothing() -> None:
    song = unit(0, 6)
    query = song[1:5].copy()
    assert alignment(query, song) == pytest.approx(1.0, abs=1e-6)
    query[2] = np.nan
    assert alignment(query, song) == pytest.approx(3 / 4, abs=1e-6)
    assert alignment(np.zeros((0, 8), np.float32), song) == 0


def test_a_point_depends_on_its_segment_alone_and_not_on_loudness(encoder: Encoder) -> None:
    sound = tunes()[0].sounds[0][: 3 * RATE]
    pieces = segments(sound)
    assert pieces.shape == (5, SEGMENT) and torch.equal(pieces[3], sound[3 * RATE // 2 :][:SEGMENT])
    with torch.no_grad():
        points = encoder(pieces)
        torch.testing.assert_close(points[2:3], encoder(pieces[2:3]), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(encoder(4 * pieces), points, atol=5e-3, rtol=0)
    torch.testing.assert_close(points.norm(dim=1), torch.ones(5))
    assert segments(sound[: SEGMENT - 1]).shape == (0, SEGMENT)


def test_a_width_that_does_not_fit() -> None:
    with pytest.raises(FieldError, match="width must divide 192"):
        Encoder(width=50)


def test_pairs_are_near_in_time_and_the_same_whenever_they_are_asked_for() -> None:
    params = SMALL.model_copy(
        update={"noise": (200.0, 200.0), "distortion": TransformationParams(shift=0, speed=0, gain=0, noise=0)}
    )
    songs, _ = params.music.load()
    pairs = Pairs(songs, params, lambda index: 10 + index)
    first, second = pairs.batch(3)
    again = Pairs(songs, params, lambda index: 10 + index).batch(3)
    assert torch.equal(first, again[0]) and torch.equal(second, again[1])
    assert not torch.equal(first, pairs.batch(4)[0])
    margin = round(params.shift * RATE)
    for one, other in zip(first.numpy(), second.numpy(), strict=True):
        spectra = np.conj(np.fft.rfft(other, 2 * SEGMENT)) * np.fft.rfft(one, 2 * SEGMENT)
        shift = int(np.fft.irfft(spectra).argmax())
        shift = shift if shift <= SEGMENT else shift - 2 * SEGMENT
        assert abs(shift) <= margin
        meeting = (one[shift:], other[: SEGMENT - shift]) if shift >= 0 else (one[:shift], other[-shift:])
        np.testing.assert_allclose(*meeting, atol=1e-4)


def test_training_draws_copies_to_each_other_and_comes_out_the_same(
    make_run: Callable[..., Any], encoder: Encoder
) -> None:
    """On seconds of music that it has not learnt from as well."""
    mild = TransformationParams(shift=0, speed=0, gain=0.5, noise=0)
    params = SMALL.model_copy(update={"updates": 15, "pairs": 8, "noise": (20.0, 30.0), "distortion": mild})
    songs, _ = MusicParams(enrolled=8, others=1, seconds=5.0, seed=8).load()
    first, second = Pairs(songs, params.model_copy(update={"pairs": 24}), lambda index: index).batch(0)
    network = trained(make_run("once"), params, None, "neural")
    with torch.no_grad():
        before, after = (float(contrastive_loss(each(first), each(second))) for each in (encoder, network))
    assert after < 0.75 * before
    short = params.model_copy(update={"updates": 2})
    once, again = (trained(make_run(name), short, None, "neural") for name in ("short", "again"))
    assert all(torch.equal(a, b) for a, b in zip(once.parameters(), again.parameters(), strict=True))


def test_perturbations_stay_in_their_ball_and_make_the_loss_larger(encoder: Encoder) -> None:
    songs, _ = tunes()
    first = torch.stack([sound[:SEGMENT] for sound in songs.sounds])
    params = AdversarialParams(epsilon=0.01, steps=3)
    second = unlike(encoder, first, first.clone(), params)
    assert float((second - first).abs().max()) <= 0.01 + 1e-6
    noise = 0.01 * (2 * torch.rand(first.shape) - 1)
    with torch.no_grad():
        clean, attacked, noisy = (
            float(contrastive_loss(encoder(first), encoder(each))) for each in (first, second, first + noise)
        )
    assert attacked > noisy > clean - 1e-3


def test_adversarial_training_is_a_step_of_its_own(encoder: Encoder) -> None:
    songs, _ = SMALL.music.load()
    batch = Pairs(songs, SMALL, lambda index: index).batch(0)
    torch.manual_seed(0)
    plain = ContrastiveStep(Engine(encoder, EngineParams()), None).backward(batch, 0)["loss"].total
    hard = ContrastiveStep(Engine(encoder, EngineParams()), AdversarialParams(epsilon=0.05, steps=3))
    assert float(hard.backward(batch, 0)["loss"].total) > float(plain)
    assert all(weight.grad is not None for weight in encoder.parameters())


def test_the_judge_hears_a_song_in_its_own_excerpt(encoder: Encoder) -> None:
    """Even before training: of a song's own seconds the points are equal."""
    songs, _ = tunes()
    judge = NeuralJudge(encoder)
    judge.enrol(arrays(songs), songs.rate)
    verdict = judge.judge(songs.sounds[2].numpy()[: 4 * songs.rate], songs.rate)
    assert verdict.song == songs.names[2] and verdict.score > 0.999
    assert judge.judge(np.zeros(2 * RATE, np.float32), RATE).song is None


def test_music_that_is_too_short_is_refused() -> None:
    params = SMALL.model_copy(update={"music": MusicParams(enrolled=3, others=1, seconds=1.5)})
    songs, _ = params.music.load()
    with pytest.raises(InputError, match="two songs must be longer than two seconds"):
        Pairs(songs, params, lambda index: index)
