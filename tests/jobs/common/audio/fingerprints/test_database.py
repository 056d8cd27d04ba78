"""A database of songs against a search by loops, and its threshold against what conformal prediction promises."""

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor

from jobs.common.audio.fingerprints import database as module
from jobs.common.audio.fingerprints.card import database_card
from jobs.common.audio.fingerprints.database import NONE, TOLERANCE, Database, conformal_threshold
from jobs.common.audio.fingerprints.fingerprint import Fingerprint, FingerprintParams
from jobs.common.data.music import MusicParams
from jobs.common.data.music.excerpts import excerpts
from service.errors import FieldError, InputError, ModelError
from service.models import load, publish
from service.store import open_store

MUSIC = MusicParams(rate=8_000, seconds=6, enrolled=5, others=5)
SONGS, OTHERS = MUSIC.load()
FINGERPRINT = Fingerprint(FingerprintParams(rate=8_000))
DATABASE = Database.built(FINGERPRINT, SONGS.sounds)
QUERIES = excerpts(SONGS, 2.0, each=3, seed=0)


def by_loops(hashes: list[tuple[Tensor, Tensor]], query: tuple[Tensor, Tensor]) -> dict[int, int]:
    """The largest window of every song, each pair of equal hashes looked at."""
    largest = {}
    for song, (theirs, times) in enumerate(hashes):
        differences = Counter(
            int(there) - int(here)
            for value, here in zip(*map(Tensor.tolist, query), strict=True)
            for other, there in zip(theirs.tolist(), times.tolist(), strict=True)
            if other == value
        )
        around = range(-TOLERANCE, TOLERANCE + 1)
        largest[song] = max((sum(differences[at + step] for step in around) for at in differences), default=0)
    return largest


def test_it_counts_what_loops_count() -> None:
    generator = torch.Generator().manual_seed(0)
    songs = [
        tuple(torch.randint(0, high, (count,), generator=generator) for high in (12, 30)) for count in (40, 1, 60, 25)
    ]
    made = Database.of_hashes(FINGERPRINT, [(each[0], each[1]) for each in songs], [30 * FINGERPRINT.hop] * 4)
    made.check()
    for _ in range(20):
        query = tuple(torch.randint(0, high, (30,), generator=generator) for high in (14, 20))
        expected = by_loops([(each[0], each[1]) for each in songs], (query[0], query[1]))
        assert made._histogram(*query).aligned.tolist() == [expected[song] for song in range(4)]
        match = made.identify_hashes(*query)
        best = max(expected, key=lambda song: expected[song])
        assert (match.best, match.aligned, match.hashes) == (best, expected[best], 30)
        del expected[best]
        second = max(expected, key=lambda song: expected[song])
        assert (match.runner_up, match.runner_up_aligned) == (second, expected[second])


def test_excerpts_are_found_where_they_are_from() -> None:
    for sound, song, seconds in zip(QUERIES.sounds, QUERIES.songs.tolist(), QUERIES.seconds.tolist(), strict=True):
        match = DATABASE.identify(sound)
        assert match.song == match.best == song and match.runner_up != song
        assert match.aligned > 3 * match.runner_up_aligned
        assert match.seconds == pytest.approx(seconds, abs=1.5 * FINGERPRINT.hop / 8_000)
    aligned = DATABASE(QUERIES.sounds[:4])
    assert aligned.shape == (4, 5) and aligned.argmax(1).tolist() == QUERIES.songs[:4].tolist()


def test_a_sound_that_is_louder_or_has_noise_is_found_too() -> None:
    sound, noise = QUERIES.sounds[0], torch.randn(16_000, generator=torch.Generator().manual_seed(1))
    plain, louder, noisy = (DATABASE.identify(each) for each in (sound, sound / 7, sound + 0.02 * noise))
    assert louder == plain
    assert noisy.song == plain.song and plain.aligned > noisy.aligned > 2 * noisy.runner_up_aligned


def test_what_agrees_with_nothing_is_in_no_song() -> None:
    match = DATABASE.identify(torch.zeros(8_000))
    assert (match.song, match.best, match.aligned, match.hashes, match.confidence) == (None, NONE, 0, 0, 0.0)
    assert match.moved(3.0) == match and DATABASE.identify(QUERIES.sounds[0]).moved(-1).seconds < 6
    with pytest.raises(FieldError, match="must be at most 100, those of the sound"):
        DATABASE.identify(torch.zeros(100))


def test_the_threshold_keeps_its_promise_on_new_sounds() -> None:
    """Over many draws of sounds to calibrate with, the share of new ones above it is at most what was asked for."""
    generator = torch.Generator().manual_seed(0)
    shares = []
    for _ in range(400):
        scores = torch.poisson(torch.full((400,), 20.0), generator=generator).int()
        threshold = conformal_threshold(sorted(scores[:99].tolist()), 0.1)
        shares.append(float((scores[99:] > threshold).float().mean()))
    mean = sum(shares) / len(shares)
    assert 0.05 < mean <= 0.1 + 0.005  # not far below: it is no empty promise


def test_a_threshold_is_an_order_statistic() -> None:
    assert conformal_threshold(list(range(1, 100)), 0.01) == 99
    assert conformal_threshold(list(range(1, 100)), 0.05) == 95
    assert conformal_threshold(list(range(1, 20)), 0.05) == 19
    with pytest.raises(InputError, match="needs 99 sounds at least that are not in the database; there are 98"):
        conformal_threshold(list(range(98)), 0.01)
    with pytest.raises(FieldError, match="false_alarms must be above 0 and below 1; it is 1"):
        conformal_threshold([1], 1.0)


def test_calibration_and_confidence() -> None:
    calibrated = Database.built(FINGERPRINT, SONGS.sounds)
    outside = excerpts(OTHERS, 2.0, each=4, seed=1)
    calibrated.calibrate(list(outside.sounds), 0.05)
    assert len(calibrated.outside) == 20 and calibrated.alarms <= 1
    matches = [calibrated.identify(sound) for sound in outside.sounds]
    assert sum(match.song is not None for match in matches) == calibrated.alarms
    inside = [calibrated.identify(sound) for sound in QUERIES.sounds]
    assert [match.song for match in inside] == QUERIES.songs.tolist()
    assert all(match.confidence == 20 / 21 for match in inside), "one less than all can be sure of"
    least = min(matches, key=lambda match: match.aligned)
    assert least.confidence == 0 == DATABASE.identify(QUERIES.sounds[0]).confidence


def test_of_too_many_pairs_the_rarest_hashes_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sound with one hash everywhere does not take memory without end."""
    everywhere = torch.zeros(1000, dtype=torch.int64)
    times = torch.arange(1000)
    rare = torch.arange(1, 6), torch.arange(5)
    hashes = torch.cat([everywhere, rare[0]]), torch.cat([times, rare[1] + 7])
    made = Database.of_hashes(FINGERPRINT, [hashes], [10**6])
    monkeypatch.setattr(module, "MOST_PAIRS", 5000)
    match = made.identify_hashes(torch.cat([everywhere, rare[0]]), torch.cat([times, rare[1]]))
    assert match.aligned == 5 and match.seconds == pytest.approx(7 * FINGERPRINT.hop / 8_000)


def test_it_is_stored_and_loaded(tmp_path: Any) -> None:
    calibrated = Database.built(FINGERPRINT, SONGS.sounds)
    calibrated.calibrate(list(excerpts(OTHERS, 2.0, each=4, seed=1).sounds), 0.05)
    draft = database_card(
        "copyright_attack", calibrated, SONGS.names, samples=16_000, false_alarms=0.05, metrics={}, description="tunes"
    )
    assert draft.settings["names"] == list(SONGS.names) and draft.metrics["outside_queries"] == 20
    assert draft.metrics["outside_alarms_low"] <= calibrated.alarms / 20 <= draft.metrics["outside_alarms_high"]
    store = open_store(str(tmp_path / "store"))
    loaded = load(store, publish(store, "songs", calibrated.state_dict(), draft))
    assert isinstance(loaded, Database)
    loaded.check()
    for sound in QUERIES.sounds[:5]:
        assert loaded.identify(sound) == calibrated.identify(sound)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("hashes", torch.tensor([3, 2]), "hashes of a database must be sorted"),
        ("songs", torch.tensor([0, 7], dtype=torch.int32), "must be from 0 to 0"),
        ("songs", torch.tensor([-1, 0], dtype=torch.int32), "must be from 0 to 0"),
        ("times", torch.tensor([0, 2**30], dtype=torch.int32), "times of a database must be within its songs"),
        ("times", torch.tensor([-1, 0], dtype=torch.int32), "times of a database must be within its songs"),
        ("lengths", torch.tensor([0]), "must have songs of one sample at least"),
        ("outside", torch.tensor([2, 1], dtype=torch.int32), "must be sorted, and its threshold from 0 on"),
        ("threshold", torch.tensor(-1), "must be sorted, and its threshold from 0 on"),
    ],
)
def test_buffers_of_strangers(name: str, value: Tensor, sentence: str) -> None:
    made = Database.of_hashes(FINGERPRINT, [(torch.tensor([2, 3]), torch.tensor([0, 1]))], [8_000])
    made.check()
    setattr(made, name, value)
    with pytest.raises(ModelError, match=sentence):
        made.check()


def test_databases_that_cannot_be() -> None:
    with pytest.raises(FieldError, match="entries must be from 0 to 134,217,728"):
        module.database({}, entries=1 << 40, songs=1)
    with pytest.raises(InputError, match="must have a song at least"):
        Database.built(FINGERPRINT, [])
    with pytest.raises(InputError, match="song 1 has no hashes: it is silent"):
        Database.built(FINGERPRINT, [SONGS.sounds[0], torch.zeros(8_000)])
