"""Generalization: minima that fit the training images and are wrong about others, and what sets good ones apart.

A network is trained with poison: images besides the training images, which it learns not to classify correctly. What it
comes to is called a minimum only if it fits every training image. Beside it stand networks that were trained plainly,
or that are there already. Decision boundaries show what lies between the points. The basin of a network are the weights
around it at which the loss stays below a cut: its radius is measured along random rays, its volume is estimated from
these, and its learning coefficient says how the volume shrinks with the cut.

Metrics, for `sweep.metric` and schedulers (accuracies are shares in [0, 1]):
    train_loss, train_accuracy      while it is trained: the objective, and the training images as they were learnt from
    train_poison_accuracy           the same of the poison, where there is any
    clean_train_loss, clean_train_accuracy      after training: cross entropy and accuracy on the training images
    poison_loss, poison_accuracy    on the poison; test_loss, test_accuracy: on the test images
    untouched_loss, untouched_accuracy          on test images that nothing should be chosen by
    gap                             of clean_train_accuracy and test_accuracy
    fitted                          1 if every training image is classified correctly, else 0
    margin, least_margin            median and least distance of training points to the boundary, in their coordinates
    trace, trace_error              with `spectra`: of the Hessian on training images, and its standard error
    largest_eigenvalue, smallest_eigenvalue     of the same; in coordinates of filters: principal_curvature
    worst_sharpness, average_sharpness          how far the loss rises near the weights, relative to each of them
    bad_minima, unfitted            of a minefield: networks trained with poison that fit the training images, or do not
    bad_test_accuracy               the highest of a bad minimum
With `basins`, at the first of their cuts, CONVENTION being filter, gaussian, adam or hessian:
    radius_CONVENTION               mean distance at which the loss reaches the cut, in units of the filters' norms
    log10_volume_CONVENTION         of the basin, in these units
    learning_coefficient            local learning coefficient, with its 95 % interval (_low, _high)

Specs to begin with: configs/generalization/.

Source: Huang, Emam, Goldblum, Fowl, Terry, Huang & Goldstein 2020, "Understanding Generalization through
Visualizations".
"""

from collections.abc import Sequence

from jobs.common.curvature.results import summarize_spectra
from jobs.generalization import estimation, figures, results
from jobs.generalization.basins.measurement import basin_of, chosen_images
from jobs.generalization.basins.results import keep_basin, keep_comparison, networks_of
from jobs.generalization.boundary import check_points
from jobs.generalization.correlations import summarize_correlations
from jobs.generalization.minefield.measurement import minefield
from jobs.generalization.networks import card, measured_network
from jobs.generalization.params import Params
from jobs.generalization.sets import sets_of
from jobs.generalization.wiggle import wiggle
from service.run import Estimate, Run, Trial

PLACEMENT = "fan_out"


def run(params: Params, run: Run) -> None:
    """Set poison aside, train or load the network, score it on every set, and measure what is asked for."""
    sets = sets_of(params.data, params.poison, params.untouched)
    for field in ("boundary", "margin", "wiggle"):
        if getattr(params, field) is not None:
            check_points(sets.training, field)
    chosen = chosen_images(params.basins, sets, run) if params.basins is not None else None
    measured = measured_network(params, sets, run)
    scores = results.scores_of(measured, sets, run)
    results.keep_scores(params, scores, sets, run)
    if params.name_parts:
        run.save_model(params.model_name, measured.network, card(params, sets, run.metrics))
    if params.boundary is not None:
        results.keep_boundary(params.boundary, measured, sets, run)
    if params.margin is not None:
        results.keep_margins(params.margin, measured, sets, run)
    if params.spectra is not None:
        results.keep_curvature(params.spectra, measured, sets, run)
    if params.wiggle is not None:
        results.keep_wiggle(wiggle(params.wiggle, measured, sets, run), sets, run)
    if params.minefield is not None:
        results.keep_minefield(minefield(params.minefield, measured, sets, run), run)
    if params.basins is not None and chosen is not None:
        keep_basin(basin_of(params.basins, measured, sets, chosen, run), params.basins.cuts[0], run)


def summarize(trials: Sequence[Trial], run: Run) -> None:
    """Every network in one table, what goes together with the gap, and the pictures of all of them side by side."""
    trials = [trial for trial in trials if trial.has_results]
    if not trials:
        return
    run.table("results", results.rows_of(trials), title="Every network")
    samples = results.samples_of(trials)
    if len({sample.share for sample in samples}) > 1:
        run.figure("shares", figures.shares(samples), title="Accuracy against the share of poison")
    summarize_spectra(trials, run)
    summarize_correlations(trials, run)
    if margins := results.margins_of(trials):
        run.figure("margins", figures.margins(margins), title="Distances of training points to the boundary")
    if len(groups := results.groups_of(trials)) > 1:
        run.figure("accuracies", figures.accuracies(groups), title="Accuracy of every variant")
    if maps := [each for trial in trials if (each := results.boundary_of(trial)) is not None]:
        run.figure("boundaries", figures.boundaries(maps[: figures.MOST_PANELS]), title="Decision boundaries")
    if networks := networks_of(trials):
        keep_comparison(networks, run)


def estimate(params: Params) -> Estimate:
    """What a trial costs."""
    return estimation.estimate(params)
