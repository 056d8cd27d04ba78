"""The whole study on short tunes: what comes out, kill and resume, Ray, and what cannot work."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from jobs.common.audio.files import read
from jobs.copyright_attack.estimation import estimate
from jobs.copyright_attack.job import run, summarize
from jobs.copyright_attack.params import Params
from service import models
from service.errors import AssayError
from service.execution.checkpoints import decode
from service.planning.validation import validate
from service.run import Trial
from tests.jobs.elsewhere import check_elsewhere, check_ray
from tests.jobs.killed import KilledAfterCells, check_resumed

BASIS: dict[str, Any] = {
    "data": {"name": "tunes", "seconds": 5.0, "enrolled": 3, "others": 3},
    "seconds": 3.0,
    "fingerprints": {"peaks": {"resolutions": [{"samples": 512, "hop": 256}]}},
    "attacks": {"ring": {"steps": 12, "epsilons": [0.1]}},
    "judges": {"names": ["wang"]},
    "encodings": [],
    "database_false_alarms": 0.3,
    "batch": 2,
}


def params(**changes: Any) -> Params:
    return validate(Params, {**BASIS, **changes}, "params")


WHOLE: dict[str, Any] = {
    "attacks": {
        "ring": {"steps": 12, "epsilons": [0.05, 0.1]},
        "remix": {"objective": {"kind": "remix"}, "steps": 4, "epsilons": [0.05]},
        "hidden": {"bound": {"kind": "masking"}, "steps": 3, "epsilons": [2.0]},
    },
    "encodings": [32],
    "ratio": {"attack": "ring", "tolerance": 6.0},
    "universal": {"attack": {"objective": {"kind": "overlap"}, "steps": 4, "epsilons": [0.1]}},
    "queries": {"queries": 4, "songs": 1},
    "songs": 2,
}


def rows(handle: Any, name: str) -> list[dict[str, Any]]:
    return handle.folder.read_table(f"tables/{name}.parquet").to_pylist()  # type: ignore[no-any-return]


def made_by(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["attack"], row["epsilon"], row["kilobits"]


def test_one_spec_attacks_asks_and_controls(make_run: Any) -> None:
    handle = make_run()
    run(params(**WHOLE), handle)
    clips = rows(handle, "clips")
    attacks = {"ring": [0.05, 0.1], "remix": [0.05], "hidden": [2.0], "universal": [0.1], "queries_wang": [0.05]}
    for attack, epsilons in attacks.items():
        for epsilon in epsilons:
            these = [row for row in clips if made_by(row) == (attack, epsilon, 0)]
            songs = 1 if attack == "queries_wang" else 2
            kinds = ["attack", "uniform_linf", "uniform", "gaussian"]
            assert [row["kind"] for row in these] == kinds * songs
            for changed, linf, uniform, gaussian in zip(*[iter(these)] * 4, strict=True):
                # controls are as large as they say
                assert linf["linf"] == pytest.approx(changed["linf"], rel=0.01)
                assert uniform["rms"] == pytest.approx(changed["rms"], rel=0.02)
                assert gaussian["rms"] == pytest.approx(changed["rms"], rel=0.02)
                if attack in ("ring", "remix", "universal", "queries_wang"):
                    assert changed["linf"] <= epsilon + 1e-5
    left = {
        kind: [row["survival_peaks"] for row in clips if (row["kind"], *made_by(row)) == (kind, "ring", 0.1, 0)]
        for kind in ("attack", "uniform")
    }
    assert len(left["attack"]) == 2 and np.mean(left["attack"]) < 0.8 * np.mean(left["uniform"])
    assert len([row for row in clips if row["kind"] == "unrelated"]) == 3
    assert len([row for row in clips if row["kilobits"] == 32]) == 2 * 6 + 1  # of all attacks, and the originals

    verdicts = rows(handle, "verdicts")
    assert {row["judge"] for row in verdicts} == {"attacked", "wang"} and len(verdicts) == 2 * len(clips)
    originals = [
        row for row in verdicts if clips[row["clip"]]["kind"] == "original" and not clips[row["clip"]]["kilobits"]
    ]
    assert all(row["right"] and row["named"] == clips[row["clip"]]["song"] for row in originals)
    levels = rows(handle, "levels")
    assert len(levels) == 2 * 2 * 3 and {row["kind"] for row in levels} == {"attack", "uniform", "gaussian"}
    (question,) = rows(handle, "questions")
    assert question["queries"] <= 4 and question["last_score"] <= question["first_score"]

    # what is said of a sound is true of the sound in the file
    row = next(row for row in clips if row["kind"] == "attack" and row["attack"] == "ring" and row["epsilon"] == 0.1)
    sounds = [
        read(io.BytesIO(handle.folder.read(f"sounds/{name}.wav")), "a sound").samples
        for name in ("0-original", "0-attack-ring-0.1")
    ]
    change = (sounds[1] - sounds[0]).numpy()
    assert np.abs(change).max() == pytest.approx(row["linf"], abs=2e-4)
    assert np.sqrt(np.square(change).mean()) == pytest.approx(row["rms"], rel=1e-2)

    # the database is there to be served
    (path,) = [each for each in handle.written.artefacts if "models" in each]
    draft = models.CardDraft.model_validate(decode(handle.folder.read(path))["draft"])
    assert draft.task == "music_identification" and len(draft.settings["names"]) == 3
    assert draft.metrics["identified_attacked_original"] == 1.0 and draft.metrics["songs"] == 3


def test_a_run_that_is_killed_goes_on_where_it_was(make_run: Any) -> None:
    changes = {"ratio": {"attack": "ring", "tolerance": 12.0}}
    tables = ("clips", "verdicts", "shares", "levels", "ratios")
    check_resumed(run, params(**changes), make_run, [KilledAfterVerdicts], tables)


class KilledAfterVerdicts(KilledAfterCells):
    cells = "verdicts"


def test_cells_that_are_computed_elsewhere_give_the_same(make_run: Any) -> None:
    """The short form of the next test: no process is started."""
    check_elsewhere(run, params(), make_run, ("clips.parquet", "verdicts.parquet", "shares.parquet"))


@pytest.mark.slow
def test_ray_gives_what_a_serial_run_gives(ray_session: None, tmp_path: Path) -> None:
    check_ray("copyright_attack", BASIS, tmp_path, ("clips.parquet", "verdicts.parquet", "shares.parquet"))


def test_trials_stand_beside_each_other(make_run: Any) -> None:
    handle = make_run()
    run(params(), handle)
    common = {"id": "000", "label": "x", "variant": None, "seed": 0, "overrides": {}, "params": params(), "best": True}
    trial = Trial(handle.folder, status="finished", metrics=handle.metrics, **common)
    whole = make_run("whole")
    summarize([trial], whole)
    assert rows(whole, "results")[0]["identified_wang_original"] == 1.0
    assert whole.folder.exists("figures/identified_000.png")


def test_an_attack_that_changes_nothing_has_no_loudness_of_its_change(make_run: Any) -> None:
    """Less than a step of 16 bits: what a change of nothing hides is not a number."""
    handle = make_run()
    run(params(attacks={"ring": {"steps": 1, "epsilons": [1e-6]}}, songs=1), handle)
    assert handle.metrics["snr_ring"] == np.inf and handle.metrics["survival_peaks_ring"] == 1
    assert "noise_to_mask_ring" not in handle.metrics


def test_what_it_costs_is_said_beforehand() -> None:
    small, large = estimate(params()), estimate(params(attacks={"ring": {"steps": 24, "epsilons": [0.05, 0.1]}}))
    assert small.core_seconds and large.core_seconds and large.core_seconds > small.core_seconds
    assert small.details["clips"] == 3 * 5 + 3


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"songs": 4}, "songs must be at most 3, the number of enrolled songs; it is 4"),
        ({"seconds": 6.0}, "seconds of an excerpt must be at most 5, a song's; it is 6"),
        ({"seconds": 0.03}, "a sound must last at least 0.0464 seconds, a frame"),
        (
            {"songs": 1, "attacks": {"r": {"objective": {"kind": "remix"}}}},
            "songs must be at least 2 for the objective",
        ),
        ({"data": {**BASIS["data"], "others": 0}, "universal": {}}, "data.others must be at least 1"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_computed(
    make_run: Any, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(AssayError, match=sentence):
        run(params(**changes), make_run())


def test_excerpts_are_looked_at_before_judges_are_trained(make_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.copyright_attack.job.enrolled_judges", lambda *given: pytest.fail("judges were made"))
    with pytest.raises(AssayError, match="a sound must last at least 0.0464 seconds, a frame"):
        run(params(seconds=0.03), make_run())
    monkeypatch.setattr("jobs.copyright_attack.encodings.MP3_RATES", (8_000,))
    with pytest.raises(AssayError, match="encodings must be at most 320 kbit/s for .* samples a second; it is 64"):
        run(params(encodings=[64]), make_run("mp3"))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"attacks": {"ring": {"fingerprints": ["other"]}}},
            "attacks.ring.fingerprints must be of peaks; it is 'other'",
        ),
        ({"ratio": {"attack": "rings"}}, "ratio.attack must be of ring, the attacks; it is 'rings'"),
        ({"ratio": {"epsilon": 0.2}}, "ratio.epsilon must be of 0.1, the sizes of that attack; it is 0.2"),
        ({"encodings": [64, 64]}, "encodings must name each once"),
        ({"attacks": {"ring": {"epsilons": [0.1, 0.1]}}}, "epsilons must name each once"),
        ({"judges": {"names": ["wang", "wang"]}}, "judges.names must name each once"),
        ({"defences": {"votes": [2, 2]}}, "votes must name each once"),
        ({"queries": {"judges": ["acoustid"]}}, "queries.judges must be of judges.names, wang; it is 'acoustid'"),
        ({"attacks": {"universal": {}}}, "attacks must be names other than original, universal, .*; it is 'universal'"),
        ({"attacks": {"noise_as_ring": {}, "ring": {}}}, "not begin with noise_as_ or queries_; it is 'noise_as_ring'"),
        (
            {"universal": {"attack": {"objective": {"kind": "ring"}, "transformations": {}}}},
            "universal.attack.transformations must be left out",
        ),
        ({"attacks": {"ring": {"transformations": {"cutoff": [0.0, 9.0]}}}}, "cutoff must go from above 0 up"),
        ({"attacks": {"ring": {"transformations": {"noise": [2.0, 1.0]}}}}, "noise must go from 0 or more up"),
        ({"encodings": [4]}, "encodings must be from 8 to 320 kbit/s; it is 4"),
        ({"attacks": {"ring": {"epsilons": [0.0]}}}, "epsilons must be above 0"),
        ({"attacks": {"ring": {"objective": {"kind": "ring", "inner": 12}}}}, "inner must be below outer, 12"),
        (
            {"universal": {"attack": {"objective": {"kind": "remix"}}}},
            "universal.attack.objective must be overlap or ring",
        ),
        ({"judges": {"names": ["shazam"]}}, "judges.names"),
        ({"loudness": float("nan")}, "loudness"),
        ({"attacks": {}}, "attacks"),
    ],
)
def test_specs_that_make_no_sense_are_refused_by_name(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises((AssayError, ValidationError), match=sentence):
        params(**changes)
