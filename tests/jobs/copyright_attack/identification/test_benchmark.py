"""The benchmark of judges in small: what its tables say is what judges say one by one, and its figures are drawn."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from jobs.common.metrics.detection import threshold_at
from jobs.copyright_attack.identification import figures
from jobs.copyright_attack.identification.benchmark import check, excerpts, measured
from jobs.copyright_attack.identification.params import IdentificationParams
from jobs.copyright_attack.identification.tables import cost_rows, judge_rows, level_rows
from jobs.copyright_attack.judges.dejavu import DejavuJudge
from jobs.copyright_attack.judges.enrolment import calibrated, chosen, enrol, scores_of, verdicts_of
from jobs.copyright_attack.judges.params import JudgesParams
from jobs.copyright_attack.judges.wang import WangJudge
from service.errors import FieldError, InputError
from tests.jobs.copyright_attack.judges.music import arrays, tunes

PARAMS = IdentificationParams(
    seconds=4.0, excerpts=2, duration=(1.0, 4.0), noise=(-30.0, 10.0), speed=(20.0,), pitch=(), songs=(2, 4)
)


def test_the_tables_say_what_judges_say(make_run: Callable[..., Any]) -> None:
    songs, others = tunes()
    run = make_run()
    enrolment = enrol({"wang": WangJudge(), "dejavu": DejavuJudge()}, songs, run)
    benchmark = measured(PARAMS, enrolment, songs, others, 0.25, run)
    asked = sum(len(each.truth) for (judge, *_), each in benchmark.answers.items() if judge == "wang")
    assert asked == excerpts(PARAMS, len(songs), len(others))
    rows = {(row["judge"], row["axis"], row["level"]): row for row in level_rows(benchmark, enrolment)}
    assert len(rows) == 2 * 7
    assert rows["wang", "noise", 10.0]["identified"] == 1.0 and rows["wang", "noise", 10.0]["excerpts"] == 8
    assert rows["wang", "noise", -30.0]["identified"] < 0.5 and rows["dejavu", "speed", 20.0]["identified"] < 0.5
    assert rows["wang", "noise", 10.0]["identified_low"] == pytest.approx(0.025 ** (1 / 8))
    assert rows["wang", "noise", 10.0]["false_alarms"] is None
    assert rows["dejavu", "songs", 2.0]["excerpts"] == 4 and rows["dejavu", "songs", 2.0]["false_alarms"] is not None
    assert rows["wang", "duration", 4.0]["identified"] == benchmark_of_plain(benchmark, "wang")

    alone = WangJudge()
    alone.enrol(arrays(songs), songs.rate)
    generator = np.random.default_rng([run.seed_for("identification"), 0, 3])
    start = int(generator.integers(0, len(others.sounds[1]) - 4 * songs.rate + 1))
    verdict = alone.judge(others.sounds[1].numpy()[start : start + 4 * songs.rate], songs.rate)
    plain = benchmark.plain("wang", enrolled=False)
    assert plain is not None and plain.scores[3].max() == verdict.score and plain.truth.tolist() == [-1] * 4
    assert benchmark.threshold("wang") == threshold_at(plain.best, 0.25)

    judges = {row["judge"]: row for row in judge_rows(benchmark, enrolment)}
    assert judges["dejavu"]["roc_area"] > 0.9 and judges["wang"]["excerpts_of_others"] == 4
    assert judges["wang"]["threshold_high"] is None, "four excerpts do not say"
    costs = {row["judge"]: row for row in cost_rows(benchmark, enrolment)}
    assert 0 < costs["wang"]["judged_in_seconds"] < costs["dejavu"]["judged_in_seconds"]
    assert costs["wang"]["bytes_per_song"] == alone.bytes / 4

    titles = {name: judge.title for name, judge in enrolment.judges.items()}
    drawn = figures.levels(list(rows.values()), list(costs.values()), titles)
    assert [axes.get_title("left").split(";")[0] for axes in drawn.axes] == [
        "duration",
        "noise",
        "speed",
        "songs",
        "cost",
        "",
    ]
    curves = figures.rocs({name: benchmark.scores_for_roc(name) for name in titles}, titles, 0.25)
    run.figure("levels", drawn)
    run.figure("rocs", curves)
    assert len(curves.axes[0].get_legend().get_texts()) == 2


def benchmark_of_plain(benchmark: Any, judge: str) -> float:
    """Excerpts of 4 seconds are those that are not changed."""
    plain, threshold = benchmark.plain(judge, enrolled=True), benchmark.threshold(judge)
    return float(((plain.scores.argmax(1) == plain.truth) & (plain.best > threshold.value)).mean())


def test_a_cell_is_the_same_wherever_it_is_computed(make_run: Callable[..., Any]) -> None:
    songs, others = tunes()
    first = measured(PARAMS, enrol({"wang": WangJudge()}, songs, make_run("a")), songs, others, 0.25, make_run("a"))
    again = measured(PARAMS, enrol({"wang": WangJudge()}, songs, make_run("b")), songs, others, 0.25, make_run("b"))
    assert first.answers.keys() == again.answers.keys()
    for key, answers in first.answers.items():
        assert np.array_equal(answers.scores, again.answers[key].scores)


def test_more_songs_than_there_are() -> None:
    songs, others = tunes()
    with pytest.raises(FieldError, match="identification.songs must be at most 4"):
        check(PARAMS.model_copy(update={"songs": (2, 5)}), songs, others)
    with pytest.raises(FieldError, match="data.others must be at least 1"):
        check(PARAMS, songs, others.part([]))


def test_what_judges_say_of_sounds(make_run: Callable[..., Any]) -> None:
    songs, others = tunes()
    run = make_run()
    enrolment = enrol({"wang": WangJudge()}, songs, run)
    scores = scores_of(enrolment, [*songs.sounds, *others.sounds], songs.rate, run, "all")
    assert scores["wang"].shape == (6, 4) and scores["wang"].argmax(1)[:4].tolist() == [0, 1, 2, 3]
    thresholds = calibrated({"wang": scores["wang"][4:]}, 0.5)
    assert thresholds["wang"].value < scores["wang"][:4].max(1).min()
    scores["wang"][0] = np.nan
    verdicts = verdicts_of(enrolment, scores)["wang"]
    assert verdicts[0] is None and verdicts[1] is not None and verdicts[1].song == songs.names[1]


class Failing(WangJudge):
    name = "failing"

    def fingerprint(self, sound: np.ndarray, rate: int) -> dict[str, np.ndarray]:
        raise RuntimeError("it does not work")


def test_a_judge_that_fails_is_left_out(make_run: Callable[..., Any]) -> None:
    songs, _ = tunes()
    run = make_run()
    enrolment = enrol({"failing": Failing(), "wang": WangJudge()}, songs, run)
    assert list(enrolment.judges) == ["wang"] and len(enrolment.judges["wang"].songs) == 4
    assert run.failed_cells


def test_absent_judges_are_named_and_a_run_without_any_is_refused(
    make_run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.copyright_attack.judges.chromaprint._problem", lambda: "it is not there")
    run = make_run()
    judges = chosen(JudgesParams(names=("chromaprint", "wang")), run)
    assert list(judges) == ["wang"]
    assert list(run.written.warnings) == ["the judge chromaprint is left out: it is not there"]
    with pytest.raises(InputError, match="none of the judges chromaprint, acoustid is here"):
        chosen(JudgesParams(names=("chromaprint", "acoustid")), run)
