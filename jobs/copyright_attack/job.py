"""Attacks on copyright detection: can a fingerprint of music be fooled, and by how much less than noise fools it?

Fingerprints of peaks, as Shazam's, are made differentiable and attacked: excerpts of songs change by no more than a
bound until their peaks have moved. Judges that know nothing of the attack, programs and matchers of others among them,
then say which song each excerpt is of. Beside every attack stand the original, noise of equal size, and songs that are
not enrolled. All judges run here: nobody's service is asked.

Metrics, for `sweep.metric`, in one row at the end; JUDGE, ATTACK and NAME, of a fingerprint, are those of the spec,
each attack at its largest size:
    identified_JUDGE_original           share of the originals that a judge identifies
    wrong_JUDGE_unrelated               share of songs that are not enrolled which it takes for one
    identified_JUDGE_ATTACK             share of attacked excerpts that it identifies
    identified_JUDGE_noise_as_ATTACK    the same with uniform noise of equal norm
    survival_NAME_ATTACK                share of the original's peaks that are left
    snr_ATTACK, noise_to_mask_ATTACK    sound over change, and change over what the sound hides, in dB
    ratio_JUDGE_NOISE                   norm of noise over that of the attack, where each loses the song: the median

Specs to begin with: configs/copyright_attack/.

Sources: Saadatpanah, Shafahi, Goldstein 2020, "Adversarial attacks on copyright detection systems" (ICML); Wang 2003,
"An industrial-strength audio search algorithm".
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jobs.common.audio.fingerprints.fingerprint import Fingerprint
from jobs.common.audio.resampling import resampled
from jobs.common.data.music.base import Songs
from jobs.common.trials import rows_of
from jobs.copyright_attack import database, estimation, figures, results
from jobs.copyright_attack.clips import (
    ATTACK,
    ORIGINAL,
    UNRELATED,
    Clip,
    Subjects,
    encoded,
    made,
    made_universal,
    subjects_of,
    with_controls,
)
from jobs.copyright_attack.database import AttackedJudge
from jobs.copyright_attack.defences.measurement import Asked, defence_rows, defended, white_box_asked
from jobs.copyright_attack.identification import benchmark, tables
from jobs.copyright_attack.identification import figures as identification_figures
from jobs.copyright_attack.judges.enrolment import Enrolment, chosen, enrol, scores_of, verdicts_of
from jobs.copyright_attack.measures import measured
from jobs.copyright_attack.params import Params
from jobs.copyright_attack.questions import made_by_queries
from jobs.copyright_attack.ratios import levels, ratios
from service.run import Estimate, Run, Trial

PLACEMENT = "fan_out"


def run(params: Params, run: Run) -> None:
    """Enrol songs with judges, attack excerpts of them, and ask the judges."""
    enrolled, others = params.data.load()
    subjects = subjects_of(params, enrolled, others, run)
    if params.identification is not None:
        benchmark.check(params.identification, enrolled, others)
    enrolment = enrolled_judges(params, enrolled, run)
    titles = {name: judge.title for name, judge in enrolment.judges.items()}

    attacked = made(params, subjects, run) | made_universal(params, subjects, run)
    asked, questions = made_by_queries(params, subjects, enrolment, run)
    if questions:
        run.table("questions", questions, title="What came of asking judges alone")
    clips = with_controls(params, subjects, attacked | asked, run)
    after, written = encoded(params, clips, subjects.rate, run)
    clips += after
    measures = measured(clips, subjects.own.sounds, params.fingerprints, subjects.rate, params.quality, run)
    rows = results.clip_rows(clips, measures, enrolled.names, others.names)
    run.table("clips", rows, title="Every sound that judges were asked about, and how large its change is")
    run.table(
        "measures", means := results.measure_rows(rows), title="How large the changes are, in the mean over songs"
    )

    scores = scores_of_clips(enrolment, clips, subjects.rate, run)
    calibrate(params, enrolment, clips, scores, run)
    verdicts = results.verdict_rows(clips, verdicts_of(enrolment, scores), enrolled.names)
    run.table("verdicts", verdicts, title="What every judge says of every sound")
    shares = results.share_rows(rows, verdicts)
    run.figure("identified", figures.identified(shares, titles), title="Does the attack beat the noise?")
    run.table("shares", shares, title="Share of songs that are identified, with 95 % intervals over songs")

    ratio_rows = ratio_of_norms(params, subjects, attacked, enrolment, titles, run)
    if params.encodings:
        run.figure("survival", figures.survival(shares, titles), title="Attacks that go through MP3 files")
        sizes = [{"asked": each, "written": size} for each, size in written.items()]
        run.table("encodings", sizes, title="Kilobits a second that were asked for, and that the files have")
    keep_rocs(params, clips, scores, titles, run)
    if params.identification is not None:
        identify(params, enrolment, enrolled, others, titles, run)
    if params.defences is not None:
        defend(params, enrolment, subjects, clips, scores, run)
    keep_examples(params, clips, subjects, enrolled, run)

    for sentence in results.warnings_of(shares, enrolment.judges):
        run.warn(sentence)
    metrics = results.metrics_of(params, shares, means, ratio_rows)
    own = enrolment.judges.get(AttackedJudge.name)
    if isinstance(own, AttackedJudge):
        known = {name: value for name, value in metrics.items() if AttackedJudge.name in name and np.isfinite(value)}
        database.keep(own, params, known, run)
    run.log(step=run.step, **metrics)


def enrolled_judges(params: Params, enrolled: Songs, run: Run) -> Enrolment:
    """All judges with all songs, the attacked fingerprint as the first of them."""
    judges = chosen(params.judges, run)
    if params.defences is not None:
        judges |= defended(params.defences, params.judges.neural, judges, run)
    first = next(iter(params.fingerprints.values()))
    return enrol({AttackedJudge.name: AttackedJudge(first), **judges}, enrolled, run)


def scores_of_clips(enrolment: Enrolment, clips: Sequence[Clip], rate: int, run: Run) -> dict[str, np.ndarray]:
    """Scores (clips, songs) by judge. Equal clips, such as noise beside several attacks, are asked about once."""
    places: dict[str, int] = {}
    distinct: list[Tensor] = []
    for clip in clips:
        if places.setdefault(clip.digest, len(distinct)) == len(distinct):
            distinct.append(clip.sound)
    scores = scores_of(enrolment, distinct, rate, run, "verdicts")
    order = [places[clip.digest] for clip in clips]
    return {name: each[order] for name, each in scores.items()}


def calibrate(
    params: Params, enrolment: Enrolment, clips: Sequence[Clip], scores: Mapping[str, np.ndarray], run: Run
) -> None:
    """Set the threshold of the attacked fingerprint, by excerpts of songs that are not enrolled."""
    own = enrolment.judges.get(AttackedJudge.name)
    if isinstance(own, AttackedJudge):
        best = scores[own.name][of_kind(clips, UNRELATED)].max(1)
        database.calibrate(own, best[~np.isnan(best)].tolist(), params, run)


def of_kind(clips: Sequence[Clip], kind: str, attack: str = "", epsilon: float = 0.0) -> np.ndarray:
    """The places of clips of a kind that went through no MP3: int64 (count,)."""
    key = (kind, attack, epsilon, 0)
    return np.array([place for place, clip in enumerate(clips) if clip.key[1:] == key], dtype=np.int64)


def ratio_of_norms(
    params: Params,
    subjects: Subjects,
    attacked: Mapping[tuple[str, float], Tensor],
    enrolment: Enrolment,
    titles: Mapping[str, str],
    run: Run,
) -> list[dict[str, Any]]:
    """How many times the norm of the attack noise needs."""
    if params.ratio is None:
        return []
    epsilon = params.ratio.epsilon or max(params.attacks[params.ratio.attack].epsilons)
    changed = attacked[params.ratio.attack, epsilon]
    found = levels(params.ratio, enrolment, subjects.own.sounds, changed, subjects.rate, run)
    run.table(
        "levels", found, title="Level of a change at which each judge loses each song, in dB relative to the song"
    )
    rows = ratios(found)
    run.table(
        "ratios", rows, title="Norm of noise over that of the attack, where each loses the song: medians over songs"
    )
    run.figure("ratios", figures.ratios(rows, titles), title="How many times the norm of the attack noise needs")
    return rows


def keep_rocs(
    params: Params, clips: Sequence[Clip], scores: Mapping[str, np.ndarray], titles: Mapping[str, str], run: Run
) -> None:
    """The ROC of each judge on originals and on songs that are not enrolled."""
    own, unrelated = of_kind(clips, ORIGINAL), of_kind(clips, UNRELATED)
    songs = np.array([clips[place].song for place in own], dtype=np.int64)
    pairs = {}
    for name, each in scores.items():
        right, best = each[own, songs], each[unrelated].max(1)
        pairs[name] = right[~np.isnan(right)], best[~np.isnan(best)]
    picture = identification_figures.rocs(pairs, titles, params.judges.false_alarms)
    run.figure("roc", picture, title="How well judges tell songs that are enrolled from others")


def identify(
    params: Params, enrolment: Enrolment, enrolled: Songs, others: Songs, titles: Mapping[str, str], run: Run
) -> None:
    """The benchmark of judges on excerpts that nobody attacks."""
    assert params.identification is not None
    found = benchmark.measured(params.identification, enrolment, enrolled, others, params.judges.false_alarms, run)
    level_rows, costs = tables.level_rows(found, enrolment), tables.cost_rows(found, enrolment)
    picture = identification_figures.levels(level_rows, costs, titles)
    run.figure("identification", picture, title="What judges identify that nobody attacks, and what it costs")
    run.table("judges", tables.judge_rows(found, enrolment), title="The judges, their rules and their thresholds")
    run.table("identification", level_rows, title="Identification along each axis")
    run.table("costs", costs, title="What judges cost")


def defend(
    params: Params,
    enrolment: Enrolment,
    subjects: Subjects,
    clips: Sequence[Clip],
    scores: Mapping[str, np.ndarray],
    run: Run,
) -> None:
    """What defences gain under attack, and what they cost in false alarms."""
    assert params.defences is not None
    judges = {name: each for name, each in scores.items() if name != AttackedJudge.name}
    groups = {"the originals": of_kind(clips, ORIGINAL)}
    for name, attack in params.attacks.items():
        for epsilon in attack.epsilons:
            groups[f"{name} {epsilon:g}"] = of_kind(clips, ATTACK, name, epsilon)
    asked = {
        title: Asked(
            {name: each[places] for name, each in judges.items()}, np.array([clips[place].song for place in places])
        )
        for title, places in groups.items()
    }
    if params.defences.white_box is not None:
        truth = np.arange(len(subjects.own))
        sounds = list(subjects.own.sounds)
        asked |= white_box_asked(params.defences.white_box, enrolment, sounds, truth, subjects.rate, run)
    unrelated = {name: each[of_kind(clips, UNRELATED)] for name, each in judges.items()}
    rows = defence_rows(params.defences, asked, unrelated, params.judges.false_alarms)
    run.table("defences", rows, title="Judges with defences beside those without: what is identified, and false alarms")


def keep_examples(params: Params, clips: Sequence[Clip], subjects: Subjects, enrolled: Songs, run: Run) -> None:
    """Sounds of the first songs, and their spectrograms with the peaks before and after."""
    results.keep_sounds(params, clips, subjects, enrolled.names, run)
    fingerprint = next(iter(params.fingerprints.values())).build()
    for song in range(min(params.examples, len(subjects.own))):
        shown = [
            clip
            for clip in clips
            if clip.song == song
            and not clip.kilobits
            and (clip.kind == ORIGINAL or (clip.kind in (ATTACK, "uniform") and _largest(params, clip)))
        ]
        pictures = [picture_of(fingerprint, subjects, clip) for clip in shown]
        resolution = fingerprint.resolutions[0]
        run.figure(
            f"spectrograms_{song}",
            figures.spectrograms(pictures, fingerprint.rate, resolution.hop),
            title=f"Peaks before and after: {enrolled.names[song]}",
        )


def _largest(params: Params, clip: Clip) -> bool:
    """Whether a clip is of an attack of the spec at its largest size; of noise, as large as the first one."""
    if clip.attack not in params.attacks or clip.epsilon != max(params.attacks[clip.attack].epsilons):
        return False
    return clip.kind == ATTACK or clip.attack == next(iter(params.attacks))


def picture_of(fingerprint: Fingerprint, subjects: Subjects, clip: Clip) -> figures.Spectrogram:
    """A clip at the first resolution of a fingerprint."""
    sounds = torch.stack([subjects.own.sounds[clip.song], clip.sound])
    sounds = resampled(sounds, subjects.rate, fingerprint.rate)
    with torch.no_grad():
        magnitudes = fingerprint.magnitudes(sounds)[0][1].numpy()
    before, after = (each.numpy() for each in fingerprint.peaks(sounds)[0])
    name = {ORIGINAL: "the original", ATTACK: f"{clip.attack}, {clip.epsilon:g}"}.get(
        clip.kind, f"{clip.kind} noise of the norm of {clip.attack}, {clip.epsilon:g}"
    )
    kept = int((before & after).sum())
    title = f"{name}: {kept} of {int(before.sum())} peaks are left"
    return figures.Spectrogram(title, magnitudes, before & after, before & ~after, after & ~before)


def summarize(trials: Sequence[Trial], run: Run) -> None:
    """The numbers of every trial, and whether the attack beats the noise in each of them."""
    trials = [trial for trial in trials if trial.has_results]
    if not trials:
        return
    run.table("results", rows_of(trials), title="Every trial")
    for trial in trials:
        if shares := trial.table("shares"):
            titles = {row["judge"]: row["judge"] for row in shares}
            title = "Does the attack beat the noise?"
            run.figure(f"identified_{trial.id}", figures.identified(shares, titles), title=f"{title} {trial.label}")


def estimate(params: Params) -> Estimate:
    """What a trial costs."""
    return estimation.estimate(params)
