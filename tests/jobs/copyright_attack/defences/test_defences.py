"""Defences: votes counted by hand, jitter within its bounds, the attack on networks, rows that say what was counted."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from jobs.common.data.music import MusicParams
from jobs.copyright_attack.defences.adversarial import white_box
from jobs.copyright_attack.defences.jitter import JitteredWangJudge, moved
from jobs.copyright_attack.defences.measurement import Asked, defence_rows, defended, white_box_asked
from jobs.copyright_attack.defences.params import DefenceParams, JitterParams, WhiteBoxParams
from jobs.copyright_attack.defences.votes import NONE, named, voted
from jobs.copyright_attack.judges.enrolment import enrol
from jobs.copyright_attack.judges.neural.encoder import RATE, Encoder, segments
from jobs.copyright_attack.judges.neural.judge import NeuralJudge
from jobs.copyright_attack.judges.neural.params import NeuralParams
from jobs.copyright_attack.judges.wang import WangJudge
from tests.jobs.copyright_attack.judges.music import arrays, tunes


def test_votes_are_counted() -> None:
    scores = np.array([[1.0, 5.0, 2.0], [1.0, 1.0, 0.0], [np.nan, 9.0, 9.0], [7.0, 7.0, 0.0]])
    assert named(scores, 1.0).tolist() == [1, NONE, NONE, 0]
    names = {
        "one": np.array([2, 0, NONE, 1]), "two": np.array([2, 1, NONE, 0]), "three": np.array([0, NONE, 3, 0])
    }  # fmt: skip
    assert voted(names, 1).tolist() == [2, 0, 3, 0]
    assert voted(names, 2).tolist() == [2, NONE, NONE, 0]
    assert voted(names, 3).tolist() == [NONE] * 4
    assert voted({"one": np.full(3, NONE)}, 1).tolist() == [NONE] * 3
    assert voted({"one": np.zeros(0, np.int64)}, 1).tolist() == []


def test_jitter_keeps_its_bounds() -> None:
    times, bins = np.repeat(np.arange(20), 5), np.tile(np.arange(0, 50, 10), 20)
    jitter = JitterParams(bins=2, frames=1)
    new_times, new_bins = moved(times, bins, (45, 20), jitter, np.random.default_rng(0))
    assert new_bins.min() >= 0 and new_bins.max() < 45 and new_times.min() >= 0 and new_times.max() < 20
    assert (np.abs(new_bins - 10 * np.round(new_bins / 10)) <= 2).all() and len(set(new_bins.tolist())) > 15
    assert (np.diff(new_times) >= 0).all()


def test_a_jittered_query_is_drawn_by_the_query_and_the_secret() -> None:
    songs, _ = tunes()
    query = songs.sounds[0].numpy()[: 5 * songs.rate]
    plain, judge = WangJudge(), JitteredWangJudge(JitterParams(copies=3), seed=1)
    own = plain.query(query, songs.rate)
    first, again = judge.query(query, songs.rate), judge.query(query, songs.rate)
    assert np.array_equal(first["hashes"], again["hashes"])
    other = JitteredWangJudge(JitterParams(copies=3), seed=2).query(query, songs.rate)
    assert not np.array_equal(first["hashes"], other["hashes"])
    both = set(zip(first["hashes"].tolist(), first["times"].tolist(), strict=True))
    assert len(both) == len(first["hashes"]), "each counts once"
    assert set(zip(own["hashes"].tolist(), own["times"].tolist(), strict=True)) < both
    judge.enrol(arrays(songs), songs.rate)
    plain.enrol(arrays(songs), songs.rate)
    assert judge.bytes == plain.bytes, "songs are enrolled as without it"
    assert judge.judge(query, songs.rate).score >= plain.judge(query, songs.rate).score


def test_the_attack_on_a_network_stays_in_its_ball_and_is_worse_than_noise() -> None:
    torch.manual_seed(0)
    encoder = Encoder().eval()
    sound = tunes()[0].sounds[0][: 3 * RATE]
    attacked = white_box(encoder, sound, 0.01, steps=5, seed=0)
    assert float((attacked - sound).abs().max()) <= 0.01 + 1e-6
    noisy = sound + 0.01 * (2 * torch.rand(sound.shape) - 1)
    with torch.no_grad():
        clean, one, other = (encoder(segments(each)) for each in (sound, attacked, noisy))
    assert float((one * clean).sum(1).mean()) < float((other * clean).sum(1).mean())
    loud = sound / sound.abs().max()
    attacked = white_box(encoder, loud, 0.01, steps=2, seed=0)
    assert float(attacked.abs().max()) <= 1 and float((attacked - loud).abs().max()) <= 0.01 + 1e-6


def test_rows_of_defences(make_run: Callable[..., Any]) -> None:
    songs, others = tunes()
    run = make_run()
    neural = NeuralParams(music=MusicParams(enrolled=4, others=1, seconds=4.0, seed=5), updates=2, pairs=4)
    torch.manual_seed(0)
    judges: dict[str, Any] = {"wang": WangJudge(), "neural": NeuralJudge(Encoder())}
    params = DefenceParams(votes=(1, 2, 3), white_box=WhiteBoxParams(epsilons=(0.01,), steps=2))
    judges |= defended(params, neural, judges, run)
    assert list(judges) == ["wang", "neural", "wang_jittered", "neural_adversarial"]
    enrolment = enrol(judges, songs, run)
    truth = np.array([2, 0])
    sounds = [songs.sounds[place][: 4 * songs.rate] for place in truth]
    assert params.white_box is not None
    asked = white_box_asked(params.white_box, enrolment, sounds, truth, songs.rate, run)
    assert list(asked) == ["white box 0.01"] and set(asked["white box 0.01"].scores) == {"neural", "neural_adversarial"}

    right, wrong = np.eye(4)[truth], np.eye(4)[[1, 1]]
    scores = {"wang": right, "neural": wrong, "wang_jittered": right, "neural_adversarial": right}
    low = np.full((4, 4), 0.1)
    half = np.concatenate([low[:2], np.full((2, 4), 0.5)])
    of_others = {"wang": low, "neural": half, "wang_jittered": half, "neural_adversarial": low}
    rows = defence_rows(params, {"attacked": Asked(scores, truth), **asked}, of_others, 0.01)
    by = {(row["sounds"], row["judge"]): row for row in rows}
    assert by["attacked", "wang"]["identified"] == 1 and by["attacked", "neural"]["taken_for_another"] == 1
    assert by["attacked", "wang"]["false_alarms"] == 0
    assert by["attacked", "wang_jittered"]["false_alarms"] == 0.5, "calibrated on the half that scored less"
    assert by["attacked", "wang_jittered"]["defence"] == "jittered peaks"
    assert by["attacked", "1 of 2"]["identified"] == 0.5, "a tie is the first song's"
    assert by["attacked", "2 of 2"]["identified"] == 0 and by["attacked", "2 of 2"]["false_alarms"] == 0
    assert ("attacked", "3 of 2") not in by and not any(
        row["defence"] == "vote" for row in rows if "white" in row["sounds"]
    )


def test_sounds_whose_cells_failed_are_left_out() -> None:
    truth = np.array([2, 0, 1])
    scores, low = np.eye(4)[truth], np.full((5, 4), 0.1)
    lost = np.where(np.array([[False], [True], [False]]), np.nan, scores)
    asked = {"attacked": Asked({"wang": lost, "neural": scores}, truth)}
    others = {"wang": np.where(np.arange(5)[:, None] == 4, np.nan, low), "neural": low}
    rows = {row["judge"]: row for row in defence_rows(DefenceParams(votes=(2,)), asked, others, 0.01)}
    assert [rows[name]["count"] for name in ("wang", "neural", "2 of 2")] == [2, 3, 2]
    assert all(row["identified"] == 1 and row["false_alarms"] == 0 for row in rows.values())
    # of four sounds without an alarm an interval ends higher than of five
    assert (
        rows["wang"]["false_alarms_high"] == rows["2 of 2"]["false_alarms_high"] > rows["neural"]["false_alarms_high"]
    )


def test_bad_params() -> None:
    with pytest.raises(ValidationError, match="density must go from above 0 up to at most 10"):
        JitterParams(density=(2.0, 1.0))
    with pytest.raises(ValidationError, match="epsilons must be above 0"):
        WhiteBoxParams(epsilons=(0.0,))
    with pytest.raises(ValidationError, match="votes must be at least 1"):
        DefenceParams(votes=(0,))
