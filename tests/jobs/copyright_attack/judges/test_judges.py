"""What all judges have in common: songs in noise, songs that are not there, and what is no song at all."""

import io
import pickle
from functools import cache

import numpy as np
import pytest
import soundfile
import torch

from jobs.common.audio.files import read
from jobs.common.audio.resampling import resampled
from jobs.copyright_attack.judges.audfprint import AudfprintJudge
from jobs.copyright_attack.judges.base import Judge, heard
from jobs.copyright_attack.judges.chromaprint import AcoustidJudge, ChromaprintJudge
from jobs.copyright_attack.judges.dejavu import DejavuJudge
from jobs.copyright_attack.judges.neural.encoder import Encoder
from jobs.copyright_attack.judges.neural.judge import NeuralJudge
from jobs.copyright_attack.judges.wang import WangJudge
from service.errors import FieldError, InputError
from tests.jobs.copyright_attack.judges.music import RATE, arrays, tone, tunes


def encoder() -> Encoder:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Encoder()


@cache
def enrolled(kind: type[Judge]) -> Judge | str:
    """A judge with four songs, or a sentence why it is not there."""
    judge = NeuralJudge(encoder()) if kind is NeuralJudge else kind()
    if (reason := judge.available()) is not None:
        return reason
    judge.enrol(arrays(tunes()[0]), RATE)
    return judge


def made(kind: type[Judge], songs: int = 4) -> Judge:
    """A judge with so many songs, to which others may be added."""
    if isinstance(judge := enrolled(kind), str):
        pytest.skip(judge)
    return judge.of_first(songs)


KINDS = (ChromaprintJudge, AcoustidJudge, AudfprintJudge, DejavuJudge, WangJudge, NeuralJudge)
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
RULED = [kind for kind in KINDS if kind is not NeuralJudge]  # which is not trained here


@pytest.mark.parametrize("kind", RULED, ids=lambda kind: kind.name)
def test_a_song_is_found_in_noise_and_another_is_not_taken_for_one(kind: type[Judge]) -> None:
    songs, others = tunes()
    judge = made(kind)
    assert judge.songs == songs.names and judge.bytes > 0
    part = songs.sounds[2].numpy()[2 * RATE : 9 * RATE]
    noise = np.random.default_rng(0).normal(0, np.sqrt(np.square(part).mean() / 10), len(part))
    verdict = judge.judge((part + noise).astype(np.float32), RATE)
    assert verdict.song == songs.names[2] and verdict.identified and verdict.score > verdict.runner_up
    assert not judge.judge(others.sounds[0].numpy(), RATE).identified


@every_kind
def test_a_judge_travels_with_its_songs(kind: type[Judge]) -> None:
    songs, _ = tunes()
    judge = made(kind, 2)
    query = songs.sounds[1].numpy()[: 6 * RATE]
    before = judge.judge(query, RATE)
    assert pickle.loads(pickle.dumps(judge)).judge(query, RATE) == before


@every_kind
def test_fewer_songs(kind: type[Judge]) -> None:
    songs, _ = tunes()
    judge = made(kind, 3)
    query = judge.query(songs.sounds[2].numpy(), RATE)
    assert len(judge.scores(query)) == 3
    smaller = judge.of_first(1)
    assert smaller.songs == songs.names[:1] and len(smaller.scores(query)) == 1 and len(judge.songs) == 3
    with pytest.raises(FieldError, match="from 1 to 3, the number that is enrolled"):
        judge.of_first(4)


SOUNDS = {
    "silence": np.zeros(4 * RATE, np.float32),
    "a constant": np.full(4 * RATE, 0.5, np.float32),
    "a click": np.eye(1, 4 * RATE, 2000, dtype=np.float32)[0],
    "a tenth of a second": tone(440, 0.1),
    "one sample": np.ones(1, np.float32),
    "a tone": tone(440, 4.0),
    "a clipped tone": np.clip(20 * tone(330, 4.0), -1, 1),
    "a tone as float64": tone(440, 4.0).astype(np.float64),
}


@every_kind
@pytest.mark.parametrize("sound", SOUNDS)
def test_what_is_no_song_is_none(kind: type[Judge], sound: str) -> None:
    """Neither as a query, nor enrolled and asked for."""
    songs, _ = tunes()
    judge = made(kind, 1)
    judge.enrol({sound: SOUNDS[sound]}, RATE)
    scores = judge.scores(judge.query(SOUNDS[sound], RATE))
    assert np.isfinite(scores).all() and (scores >= 0).all()
    if sound not in ("a tone", "a clipped tone", "a tone as float64", "a click"):  # which are themselves
        assert not judge.verdict(scores).identified
    assert judge.judge(songs.sounds[0].numpy(), RATE).song == songs.names[0]


@pytest.mark.parametrize(
    ("rate", "channels", "options"),
    [
        (RATE, 1, {"format": "WAV", "subtype": "PCM_U8"}),
        (RATE, 2, {"format": "WAV", "subtype": "PCM_24"}),
        (96_000, 1, {"format": "WAV", "subtype": "FLOAT"}),
        (44_100, 2, {"format": "MP3"}),  # whose coder adds silence at both ends
    ],
)
def test_a_song_is_found_in_files_of_all_kinds(rate: int, channels: int, options: dict[str, str]) -> None:
    songs, _ = tunes()
    judge = WangJudge()
    judge.enrol(arrays(songs), RATE)
    part = resampled(songs.sounds[3][2 * RATE : 8 * RATE], RATE, rate).numpy()
    file = io.BytesIO()
    soundfile.write(file, np.stack([part] * channels, 1), rate, **options)
    sound = read(io.BytesIO(file.getvalue()), "a part of a song")
    verdict = judge.judge(sound.samples.numpy(), sound.rate)
    assert verdict.identified and verdict.song == songs.names[3]


def test_without_songs_there_is_no_verdict() -> None:
    verdict = WangJudge().judge(tone(440, 2.0), RATE)
    assert verdict.song is None and not verdict.identified and verdict.score == 0


def test_a_name_is_given_once() -> None:
    judge = WangJudge()
    judge.enrol({"-rf a song's name": tone(440, 2.0)}, RATE)
    with pytest.raises(InputError, match="is enrolled already"):
        judge.enrol({"-rf a song's name": tone(550, 2.0)}, RATE)


@pytest.mark.parametrize(
    ("sound", "rate", "sentence"),
    [
        (np.zeros((2, 100), np.float32), RATE, r"float \(samples,\); it is float32 \(2, 100\)"),
        (np.zeros(100, np.int16), RATE, "it is int16"),
        (np.zeros(0, np.float32), RATE, "it has none"),
        (np.array([0.0, np.nan]), RATE, "finite"),
        (np.array([0.0, np.inf]), RATE, "finite"),
        (np.full(100, 3000.0), RATE, "the largest is 3e\\+03"),
        (np.zeros(100), 100, "rate must be from 4,000 to 192,000"),
        (np.zeros(601 * 4000, np.float32), 4000, "at most 600 seconds; it lasts 601"),
    ],
)
def test_what_is_no_sound_is_refused(sound: np.ndarray, rate: int, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        heard(sound, rate, RATE)


def test_a_rate_is_changed_and_a_constant_is_taken_away() -> None:
    sound = tone(440, 1.0, 96_000) + 0.2
    changed = heard(sound, 96_000, RATE)
    assert changed.dtype == np.float32 and len(changed) == RATE and abs(float(changed.mean())) < 1e-4
    np.testing.assert_allclose(changed[100:-100], tone(440, 1.0)[100:-100], atol=3e-3)
