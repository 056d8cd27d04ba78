"""Attacks on databases of songs: what is asked, what it may cost, when it stops, what is answered."""

import io
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from jobs.copyright_attack.attack.objectives import survival
from jobs.copyright_attack.attack.search import AttackParams, attack
from service.errors import BusyError, InputError
from serving.http.messages import Form
from serving.http.protocol import InferRequest
from serving.http.settings import Attacks
from serving.kinds.music_attack import DESCRIBED, MusicAttack, prepare
from serving.kinds.work import Abandoned, Attacked
from tests.serving.kinds.test_music_identification import MODEL
from tests.serving.songs import RATE, SAMPLES, database, excerpt, stacked

SOUNDS = stacked(excerpt(0, 3_000), excerpt(2, 11_000))


def work_of(
    parameters: dict[str, Any], sounds: np.ndarray = SOUNDS, limits: Attacks | None = None, form: Form | None = None
) -> MusicAttack:
    given = {name: value for name, value in {"epsilon": 0.05, "steps": 20, **parameters}.items() if value is not None}
    request = InferRequest("", {"sounds": sounds}, given, None, False)
    return prepare(MODEL, request, form or Form(), limits or Attacks())


def run(work: MusicAttack) -> Attacked:
    return work.compute(lambda: False)


def test_the_answer_is_that_of_the_library_and_its_norms_are_those_of_the_change() -> None:
    answer = run(work_of({"steps": 30})).answer
    assert tuple(answer) == MusicAttack.outputs and {len(array) for array in answer.values()} == {2}
    originals, fingerprint = torch.from_numpy(SOUNDS), database().fingerprint
    expected = attack(originals, RATE, [fingerprint], AttackParams(steps=30), 0.05)
    np.testing.assert_allclose(answer["adversarials"], expected.sounds, atol=1e-6)
    changes = (answer["adversarials"] - SOUNDS).astype(np.float64)
    np.testing.assert_allclose(answer["linf"], np.abs(changes).max(1), rtol=1e-5)
    assert (answer["linf"] <= 0.05 + 1e-6).all() and (answer["linf"] > 0.04).all()
    np.testing.assert_allclose(answer["l2"], np.linalg.norm(changes, axis=1), rtol=1e-5)
    ratio = 10 * np.log10((SOUNDS**2).sum(1) / (changes**2).sum(1))
    np.testing.assert_allclose(answer["snr"], ratio, rtol=1e-4)
    np.testing.assert_allclose(answer["overlap"], survival(fingerprint, originals, expected.sounds, RATE), rtol=1e-6)
    assert (answer["overlap"] < 0.6).all() and answer["song"].tolist() == [0, 2]
    for row, sound in enumerate(torch.from_numpy(answer["adversarials"])):
        match = database().identify(sound)
        assert answer["adversarial_song"][row] == (-1 if match.song is None else match.song)
        assert answer["adversarial_aligned"][row] == match.aligned < answer["aligned"][row] / 2
        assert answer["successful"][row] == (match.song not in (answer["song"][row],))
    whole = np.rint(answer["adversarials"] * 32767) / 32767
    np.testing.assert_allclose(whole, answer["adversarials"], atol=1e-7)


@pytest.mark.parametrize(
    "parameters",
    [
        {"attack": "overlap"},
        {"norm": "RMS", "epsilon": 0.03},
        {"norm": "masking", "epsilon": 3},
        {"transformed": True, "seed": 4, "steps": 10},
    ],
    ids=str,
)
def test_every_option_lowers_what_agrees(parameters: dict[str, Any]) -> None:
    answer = run(work_of(parameters)).answer
    assert (answer["adversarial_aligned"] < answer["aligned"]).all() and (answer["overlap"] < 1).all()
    if parameters.get("norm") == "RMS":
        assert (answer["l2"] / np.sqrt(SAMPLES) <= 0.03 + 1e-4).all()
    again = run(work_of(parameters)).answer
    np.testing.assert_array_equal(again["adversarials"], answer["adversarials"])


def test_what_is_done_is_described_with_every_default() -> None:
    assert work_of({"outer": 9}).parameters == {
        "attack": "ring", "norm": "Linf", "epsilon": 0.05, "steps": 20, "step_size": 0.2, "transformed": False,
        "seed": 0, "outer": 9, "inner": 3, "margin": 1.0, "alpha": 1.0,
    }  # fmt: skip
    for kind, described in DESCRIBED.items():
        named = set(work_of({"attack": kind}).parameters) - {"attack", "norm", "epsilon"}
        assert set(described["parameters"]) == named
        assert all(option["description"] and "default" in option for option in described["parameters"].values())


def test_a_wav_comes_back_where_it_is_accepted() -> None:
    work = work_of({}, SOUNDS[:1], form=Form(wav=True))
    assert work.rendering is not None and work.rendering.media_type == "audio/wav"
    answer = run(work).answer
    whole, rate = soundfile.read(io.BytesIO(work.rendering.encode(answer)), dtype="int16")
    assert rate == RATE
    np.testing.assert_allclose(whole / 32767, answer["adversarials"][0], atol=1e-6)
    with pytest.raises(InputError, match="a WAV is the answer for one sound, not for 2"):
        work_of({}, form=Form(wav=True))


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"epsilon": None}, "parameter 'epsilon' is missing"),
        ({"epsilon": 0}, "must be a number above 0 and at most 2; it is 0"),
        ({"epsilon": 3}, "must be a number above 0 and at most 2; it is 3"),
        ({"epsilon": True}, "must be a number above 0"),
        ({"epsilon": "loud"}, "must be a number above 0"),
        ({"norm": "L1"}, "unknown norm 'L1'"),
        ({"attack": "rung"}, "unknown attack 'rung' (did you mean 'ring'?)"),
        ({"attack": "overlap", "outer": 9}, "unknown parameter 'outer'"),
        ({"stepps": 3}, "did you mean 'steps'"),
        ({"steps": 0}, "steps"),
        ({"inner": 12}, "inner must be below outer, 12"),
        ({"transformed": 1}, "parameter 'transformed' must be true or false; it is 1"),
        ({"seed": -1}, "parameter 'seed' must be a whole number"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_computed(parameters: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError) as raised:
        work_of(parameters)
    assert sentence in str(raised.value)


@pytest.mark.parametrize(
    ("sounds", "sentence"),
    [
        (np.zeros((1, SAMPLES), np.float32), "sound 0 is silent"),
        (SOUNDS[:, :100], "must have 1,024 to 480,000 samples; it has 100"),
        (100 * SOUNDS, "samples must be in [-1, 1]"),
        (SOUNDS[0], "shape must be [-1, -1]"),
    ],
)
def test_sounds_that_cannot_be_attacked(sounds: np.ndarray, sentence: str) -> None:
    with pytest.raises(InputError) as raised:
        work_of({}, sounds)
    assert sentence in str(raised.value)


@pytest.mark.parametrize(
    ("limits", "sentence"),
    [
        (Attacks(rows=1), "at most 1 rows (attacks.rows); it has 2"),
        (
            Attacks(passes=40),
            "at most 40 passes through the fingerprint for each sound (attacks.passes); it takes up to 42",
        ),
        (Attacks(gmacs=0.01), "(attacks.gmacs); 2 sounds x 42 passes take up to"),
    ],
)
def test_over_the_budget_the_cap_is_named(limits: Attacks, sentence: str) -> None:
    with pytest.raises(InputError) as raised:
        work_of({}, limits=limits)
    assert sentence in str(raised.value)


def test_its_cost_is_that_of_its_passes() -> None:
    work = work_of({"steps": 7})
    answer = run(work).answer
    assert (answer["queries"] + answer["gradients"] == work.cost.passes).all()
    assert work.cost.gmacs == pytest.approx((2 + 7 + 7) * MODEL.gmacs(2, SAMPLES))


def test_it_stops_when_nobody_waits_or_it_takes_too_long() -> None:
    passes = 0

    def stopped() -> bool:
        nonlocal passes
        passes += 1
        return passes > 5

    with pytest.raises(Abandoned):
        work_of({"steps": 1000}).compute(stopped)
    assert passes == 6
    with pytest.raises(BusyError, match=r"must end within 0.1 s \(attacks.seconds\)"):
        run(work_of({"steps": 9_000}, limits=Attacks(seconds=0.1)))
