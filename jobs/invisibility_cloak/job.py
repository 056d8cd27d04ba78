"""The invisibility cloak: can a picture that is worn hide people from a detector, and more than a plain one hides?

Detectors of objects are trained, or those that are there are loaded. A patch is searched for that, drawn on every
person of every image, makes one detector or several say that nothing is there: by gradient descent on its pixels,
through a rendering that wrinkles, tilts, turns, lights and moves it at random. Every patch and every control (plain
grey, the best plain colour, random pixels, the patch upside down, a look-alike) is then drawn on test images for every
detector, those included that it was not made against: the transfer matrix, with 95 % intervals over images. Detectors
behind defences are further victims; curves show how far a patch works; a sheet is there to print it.

Metrics, for `sweep.metric`; PATCH is of the spec, or clean, grey, best_colour, random, upside_down, look_alike; VICTIM
is a detector of the spec, or DETECTOR_DEFENCE:
    NAME_train_loss, NAME_val_ap50, …   while the detector NAME is trained here
    loss_PATCH                          the mean loss of a piece of the search, summed over detectors
    ap50_PATCH_VICTIM                   average precision at an overlap of one half, on the test split
    recall_PATCH_VICTIM                 share of people found at `evaluation.confidence`
    success_PATCH_VICTIM                of the people found without a patch, the share that is lost
    false_positives_PATCH_VICTIM        boxes of the class on nobody, an image

Specs to begin with: configs/invisibility_cloak/. For detectors that you load yourself; there is no preset against
anybody's product.

Source: Wu, Lim, Davis, Goldstein 2020, "Making an Invisibility Cloak: Real World Adversarial Attacks on Object
Detectors" (ECCV).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from jobs.common.data.boxes.base import BoxSet
from jobs.common.trials import rows_of as rows_of_trials
from jobs.invisibility_cloak import estimation, figures, results
from jobs.invisibility_cloak.defences import figures as defence_figures
from jobs.invisibility_cloak.defences.victims import defence_rows, defended
from jobs.invisibility_cloak.detectors import detectors_of, save_detectors
from jobs.invisibility_cloak.making import made, places_of, rows_of, sizes_differ, starts_of
from jobs.invisibility_cloak.params import Params
from jobs.invisibility_cloak.patch.search import Problem
from jobs.invisibility_cloak.physical.params import reproduction_of
from jobs.invisibility_cloak.physical.sheet import pixels_of, print_sheets
from jobs.invisibility_cloak.robustness import figures as robustness_figures
from jobs.invisibility_cloak.robustness.curves import curve_rows
from jobs.invisibility_cloak.transfer import TransferTest, found_of, measured
from service.errors import RunFailedError, unknown
from service.run import Estimate, Run, Trial

PLACEMENT = "fan_out"


def run(params: Params, run: Run) -> None:
    """Train or load detectors, make patches against them, and draw all of them before all detectors."""
    train, test = params.data.load_splits()
    sets = sets_of(params, test)
    places = places_of(params, train)
    for data in (train, *sets.values()):
        for sentence in data.remarks:
            run.warn(f"{data.name}: {sentence}")
    starts_of(params, run)  # whether all of them are there
    reproduction = reproduction_of(params.physical)
    detectors = detectors_of(params, train, train.images(places[:1]), run)
    problem = Problem(detectors, train, places, params.hidden, params.rendering, reproduction)
    victims = detectors | defended(params.defences, detectors, problem, params.search, run)

    patches, traces = made(params, victims, train, places, run)
    if not patches:
        raise RunFailedError("no patch could be made")
    rows = rows_of(params, patches, detectors, train, places, run)
    tested = TransferTest(rows, victims, sets, params.hidden, params.rendering, params.evaluation, reproduction)
    found = found_of(tested, run)
    table = measured(params, tested, found, run)
    if not table:
        raise RunFailedError("no cell of the matrix could be computed")

    confidence = params.evaluation.confidence
    picture = figures.hidden(table, confidence)
    run.figure("hidden", picture, title="Does the patch hide people, and more than a grey one does?")
    run.figure("matrix", figures.matrix(table, confidence), title="Every patch on every detector: the transfer matrix")
    pictures = {row.name: row.pixels.permute(1, 2, 0).numpy() for row in rows if row.pixels is not None}
    run.figure("patches", figures.patches(pictures), title="What is drawn on people")
    if params.examples:
        results.keep_examples(params, tested, run)
    if any(len(trace) for trace in traces.values()):
        curves = {name: trace.numpy() for name, trace in traces.items()}
        picture = figures.losses(curves, {name: params.against(name) for name in traces})
        run.figure("search", picture, title="The search for each patch")
    boxed_by = f"; boxes are drawn by {test.boxed_by}" if test.boxed_by is not None else ""
    run.table("matrix", table, title=f"The transfer matrix, with 95 % intervals over images{boxed_by}")
    keep_defences(params, table, run)
    keep_curves(params, tested, run)
    keep_sheets(params, patches, run)

    for sentence in (*sizes_differ(rows), *results.warnings_of(table, found, confidence, params.hidden)):
        run.warn(sentence)
    results.save_patches(params, rows, table, run)
    known = {name: results.clean_metrics(table, name) for name in detectors}
    save_detectors(params, detectors, train, known, run)
    run.log(step=run.step, **results.metrics_of(table))


def keep_defences(params: Params, table: list[dict[str, Any]], run: Run) -> None:
    """What defences bring back under attack, and what they cost without one."""
    if params.defences is not None:
        rows = defence_rows(table, params.defences, list(params.detectors), results.TEST)
        run.figure("defences", defence_figures.defences(rows), title="Do defences help, and what do they cost?")
        run.table("defences", rows, title="Detectors with defences beside those without, on the test split")


def keep_curves(params: Params, tested: TransferTest, run: Run) -> None:
    """How far patches work drawn otherwise than they were made for."""
    if params.curves is None:
        return
    rows = curve_rows(params.curves, tested, results.TEST, run)
    if rows:
        made_for = {"scale": params.rendering.scale, "angle": 0.0, "brightness": 0.0, "occlusion": 0.0}
        picture = robustness_figures.curves(rows, made_for, params.evaluation.confidence)
        run.figure("curves", picture, title="How small, turned, dark or covered may the patch be?")
        run.table("curves", rows, title="Patches drawn otherwise, with 95 % intervals over images")


def keep_sheets(params: Params, patches: Mapping[str, Tensor], run: Run) -> None:
    """What to print."""
    if params.physical is None or params.physical.sheet is None:
        return
    for name, patch in patches.items():
        content = print_sheets(pixels_of(patch), params.physical.sheet, name)
        run.file(f"sheet-{name}.pdf".replace("_", "-"), content, title=f"The patch {name} to print in real size")


def sets_of(params: Params, test: BoxSet) -> dict[str, BoxSet]:
    """What is tested on. InputError if a set is not there, or knows no class of the name that is to be hidden."""
    sets = {results.TEST: test, **{name: section.load("test") for name, section in params.evaluation.data.items()}}
    for data in sets.values():
        if params.hidden not in data.classes:
            raise unknown(f"class of {data.name}", params.hidden, data.classes)
    return sets


def summarize(trials: Sequence[Trial], run: Run) -> None:
    """The numbers of every trial, and whether the patch hides people in each of them."""
    trials = [trial for trial in trials if trial.has_results]
    if not trials:
        return
    for trial in trials:
        if table := trial.table("matrix"):
            title = "Does the patch hide people, and more than a grey one does?"
            picture = figures.hidden(table, trial.params.evaluation.confidence)
            run.figure(f"hidden_{trial.id}", picture, title=f"{title} {trial.label}")
    run.table("results", rows_of_trials(trials), title="Every trial")


def estimate(params: Params) -> Estimate:
    """What a trial costs."""
    return estimation.estimate(params)
