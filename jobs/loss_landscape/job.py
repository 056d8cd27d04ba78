"""Loss landscapes: the loss of a network along lines and over planes through its weights.

A network is trained here or loaded, directions are drawn and rescaled filter by filter, and the mean loss over a data
set is computed at each point of a grid, on all workers there are. With filter normalisation the widths and heights of
different networks can be compared; without it they only tell how long their weights are.

Metrics, for `sweep.metric` and schedulers:
    train_loss, train_accuracy          while a network is trained here: over the images as it learnt from them
    clean_train_loss, test_loss, clean_train_accuracy, test_accuracy     after training, of the network at the centre
    centre_loss, centre_accuracy        at the centre, over the whole split, as the network is written, in float32
    lowest, median, highest             of the finite losses on the surface
    points, images_per_point            measured points; images that were shown at one, in the mean
    not_finite, censored                points whose loss is not finite; that were stopped early, being far too high
    cosine                              of the angle between the two directions
    deviation                           the largest deviation of bfloat16 from float32, relative, where it was checked
    trace, trace_error                  of the Hessian at the centre, and its standard error, with the section `spectra`
    largest_eigenvalue, smallest_eigenvalue     of the same; in coordinates of filters: principal_curvature
    worst_sharpness, average_sharpness  how far the loss rises near the weights, relative to each of them

Specs to begin with: configs/loss_landscape/.

Source: Li et al. 2018, "Visualizing the Loss Landscape of Neural Nets".
"""

from collections.abc import Sequence

from jobs.common.curvature.results import keep_spectra, metrics_of, summarize_spectra
from jobs.common.curvature.spectra import Site, compute_spectra
from jobs.common.imports import resolve
from jobs.common.mean_loss.losses import LOSSES
from jobs.common.mean_loss.plain import score_of
from jobs.common.mean_loss.samples import check_size, drawn, normalised
from jobs.common.trials import rows_of
from jobs.loss_landscape import estimation, figures, results
from jobs.loss_landscape.networks import load_networks, scored_and_saved
from jobs.loss_landscape.params import Params
from jobs.loss_landscape.planes.axes import axes_of
from jobs.loss_landscape.planes.path import grid_around, path_on
from jobs.loss_landscape.planes.plane_params import CENTRE
from jobs.loss_landscape.surface.computation import Subject, compute_surface
from jobs.loss_landscape.surface.curvature_map import compute_curvature
from service.run import Estimate, Run, Trial

PLACEMENT = "fan_out"


def run(params: Params, run: Run) -> None:
    """Train or load the networks, choose the directions, compute the surface, and draw it."""
    if params.surface_file is not None:
        results.keep_surface_file(params, params.surface_file, run)
        return
    images, loss = params.data.load(params.split), params.evaluation.loss
    chosen = drawn(images, params.images, run.seed_for("images"))
    check_size(images, len(chosen))
    networks, images = load_networks(params.networks, params.data, images, run)
    if networks[CENTRE].trained:
        networks[CENTRE] = scored_and_saved(networks[CENTRE], params, run)
    centre = networks[CENTRE]
    score = score_of(centre.network, images, loss, run, "centre")

    network, samples = normalised(centre.network, images, chosen)
    axes = axes_of(params.plane, params.grid.axes, networks, samples, loss, run)
    results.keep_directions(params, axes, centre, run)
    grid = grid_around(params.grid, params.plane, axes, centre) if axes.explained else params.grid
    subject = Subject(network, axes.directions, samples, len(images), params.evaluation)
    surface = compute_surface(subject, grid, params.refinement, run)
    results.keep_surface(params, centre, axes, surface, score, run)
    if axes.explained and grid.y is not None:
        results.keep_path(path_on(axes, centre, subject, run), surface, axes, centre, run)
    if params.curvature is not None:
        curvature = compute_curvature(params.curvature, grid, subject, run)
        results.keep_curvature(params, curvature, centre, run)
    if params.spectra is not None:
        site = Site(network, samples.images, samples.labels, resolve(loss, LOSSES, "loss"))
        spectra = compute_spectra(site, params.spectra, run)
        run.log(step=run.step, **metrics_of(spectra))
        keep_spectra(spectra, centre.name, run)


def summarize(trials: Sequence[Trial], run: Run) -> None:
    """Every trial's numbers, and the surfaces side by side on one scale."""
    trials = [trial for trial in trials if trial.has_results]
    if not trials:
        return
    run.table("results", rows_of(trials), title="Every trial")
    summarize_spectra(trials, run)
    if lines := [results.curve_of(trial) for trial in trials if results.is_line(trial)]:
        run.figure("curves", figures.curves(lines), title="Loss and accuracy along the line")
    if planes := [results.landscape_of(trial) for trial in trials if not results.is_line(trial)]:
        run.figure("contours", figures.contours(planes), title="Contours of the loss, the same for all")
        run.figure("surfaces", figures.surfaces(planes), title="The surfaces on one scale")
        run.figure("heat", figures.heat_maps(planes), title="Every point in the colour of its loss")


def estimate(params: Params) -> Estimate:
    """What a trial costs."""
    return estimation.estimate(params)
