"""What comes out of the trials of a run: the best of each variant, one table of metrics, the models to publish."""

import math

from service import models
from service.errors import ModelError, nearest
from service.execution import checkpoints, layout
from service.execution.records import Artefact, TrialRecord
from service.handle.rows import TRIAL, read_rows, table_of
from service.models import CardDraft
from service.planning.plan import TrialPlan
from service.run import Run, Trial
from service.spec import JobSpec, Threshold
from service.store import Folder


def best_of_variants(job_spec: JobSpec, plans: list[TrialPlan], ends: dict[str, TrialRecord]) -> dict[str, str]:
    """Variant ('' if there are none) -> id of its best finished trial by the sweep's metric; ties: the first.

    A metric that is missing or not finite is worse than any number.
    """
    best: dict[str, TrialRecord] = {}
    for each in plans:
        ended = ends.get(each.id)
        if ended is None or ended.status not in ("finished", "partial"):
            continue
        variant = each.variant or ""
        if variant not in best or _better(job_spec, ended, best[variant]):
            best[variant] = ended
    return {variant: ended.id for variant, ended in best.items()}


def _better(job_spec: JobSpec, one: TrialRecord, other: TrialRecord) -> bool:
    if job_spec.sweep is None or (metric := job_spec.sweep.metric) is None:
        return False
    mine, theirs = one.metrics.get(metric, math.nan), other.metrics.get(metric, math.nan)
    if not (math.isfinite(mine) and math.isfinite(theirs)):
        return math.isfinite(mine) and not math.isfinite(theirs)
    return mine > theirs if job_spec.sweep.mode == "max" else mine < theirs


def unknown_metrics(job_spec: JobSpec, ends: dict[str, TrialRecord]) -> list[str]:
    """A sentence about each metric that the sweep goes by and that no trial has logged."""
    if (sweep := job_spec.sweep) is None:
        return []
    effects = [("sweep.metric", sweep.metric, "the first trial of each variant counts as its best")]
    if isinstance(sweep.scheduler, Threshold):
        effects.append(("sweep.scheduler.metric", sweep.scheduler.metric, "it stopped none"))
    logged = {name for ended in ends.values() for name in ended.metrics}
    return [
        f"{field}: no trial logged {metric!r}, so {effect}; {nearest(metric, logged)}"
        for field, metric, effect in effects
        if metric is not None and metric not in logged
    ]


def view(each: TrialPlan, ended: TrialRecord, folder: Folder, best: dict[str, str]) -> Trial:
    """An ended trial as `summarize` sees it."""
    return Trial(
        layout.trial(folder, each.id),
        id=each.id,
        label=each.label,
        variant=each.variant,
        seed=each.spec.seed,
        overrides=each.overrides,
        params=each.spec.params,
        status=ended.status,
        metrics=ended.metrics,
        best=each.id in best.values(),
    )


def write_metrics(plans: list[TrialPlan], folder: Folder) -> None:
    """metrics.parquet of the whole run: the rows of every trial, under its id, in the order of the plan."""
    rows = [{TRIAL: each.id, **row} for each in plans for row in read_rows(layout.trial(folder, each.id))]
    if rows:
        folder.write_table(layout.METRICS, table_of(rows))


def publish(
    job_spec: JobSpec,
    plans: list[TrialPlan],
    ends: dict[str, TrialRecord],
    store: Folder,
    folder: Folder,
    summary: Run,
) -> list[str]:
    """Put the staged models into the store: of all trials that saved a name the best, or each if there is no metric.

    A model that cannot be used, since its weights are not finite, is left where it is, with a warning.
    """
    staged: dict[str, list[TrialRecord]] = {}
    for each in plans:
        ended = ends[each.id]
        for artefact in ended.artefacts if ended.status == "finished" else ():
            if artefact.kind == "model":
                staged.setdefault(layout.place(artefact.path).stem, []).append(ended)
    published: dict[str, None] = {}
    for name, candidates in staged.items():
        chosen = candidates
        if job_spec.sweep is not None and job_spec.sweep.metric is not None:
            first = candidates[0]
            for candidate in candidates[1:]:
                first = candidate if _better(job_spec, candidate, first) else first
            chosen = [first]
        for ended in chosen:
            data = layout.trial(folder, ended.id).read(layout.MODEL.format(name))
            saved = checkpoints.decode(data)
            try:
                card = models.publish(store, name, saved["weights"], CardDraft(**saved["draft"]), run=folder.name)
            except ModelError as error:
                summary.warn(f"{error}: the model of trial {ended.label!r} is not published")
                continue
            published[f"{card.name}/{card.version}"] = None
    return list(published)


def trial_artefacts(ends: dict[str, TrialRecord]) -> list[Artefact]:
    """The artefacts of all trials, their paths as seen from the run's folder."""
    return [
        artefact.model_copy(update={"path": layout.of_trial(ended.id, artefact.path)})
        for ended in ends.values()
        for artefact in ended.artefacts
    ]


def message(ended: TrialRecord) -> str:
    """Why a trial failed, in one sentence."""
    return ended.failure.message if ended.failure else ""
