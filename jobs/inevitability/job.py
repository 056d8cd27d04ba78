"""Are adversarial examples inevitable? How robust networks are, and how robust any could be, whatever the dimension.

Curves of robust accuracy against epsilon are measured for networks that are trained here or are there already, at
several resolutions of the same images. Beside them stand ceilings: what a theorem says that no classifier exceeds.

Replicating every pixel b times in each direction multiplies the dimension by b^2 and changes nothing: curves coincide
once epsilon is scaled by b^(2/q) in Lq, as norms of images are (theorem 4). A network of the small images behind an
average of blocks has exactly the same curve; networks trained anew have nearly the same.

Where the density of the data is known the theorem is exact: networks learn to tell concentric spheres apart, and how
far their errors are is compared with how far errors can be. And images that a smooth generator makes of Gaussian noise
have a ceiling that needs no density, only how far the generator stretches distances.

Metrics, for `sweep.metric` (shares of images in [0, 1]), in one row at the end; NETWORK is as the spec names it, of
resolution 1:
    clean_NETWORK                   accuracy on the clean images
    robust_NORM_NETWORK             accuracy that is left at the largest epsilon of a norm
    area_NORM_NETWORK               mean robust accuracy from 0 to the largest epsilon
    robust                          the mean of robust_NORM_NETWORK over norms and networks
    alarms                          curves above a ceiling
    spheres                         how far errors on concentric spheres are over how far they could be, in the mean
    generated                       the median distance of generated images to another answer over the largest that the
                                    bound allows, in the mean over networks
While networks are trained, for each by NETWORK_xRESOLUTION_: train_loss, train_accuracy, val_clean, val_robust,
gradient_evaluations, train_seconds.

Specs to begin with: configs/inevitability/.

Sources: Shafahi, Huang, Studer, Feizi & Goldstein 2019, "Are adversarial examples inevitable?"; for the spheres
Gilmer et al. 2018, "Adversarial spheres"; for generated images Fawzi et al. 2018, "Adversarial vulnerability for any
classifier".
"""

import math
from collections.abc import Mapping, Sequence

from torch import Tensor

from jobs.common.data.images.base import ImageSet
from jobs.inevitability import drawing, estimation, examples, figures, networks, susceptibility
from jobs.inevitability.ceilings import bounds, concentration
from jobs.inevitability.ceilings.bound_params import BoundParams
from jobs.inevitability.ceilings.ceiling import Ceiling, alarms
from jobs.inevitability.ceilings.concentration_params import ConcentrationParams
from jobs.inevitability.curves import Curve, resolution_gaps
from jobs.inevitability.generated import generators
from jobs.inevitability.generated import measurement as generated_measurement
from jobs.inevitability.networks import Variant
from jobs.inevitability.params import CurveParams, ExampleParams, Params
from jobs.inevitability.resolutions import factor
from jobs.inevitability.spheres import drawing as sphere_drawing
from jobs.inevitability.spheres import measurement as sphere_measurement
from jobs.inevitability.spheres.measurement import Robustness
from service.run import Estimate, Run, Trial

PLACEMENT = "fan_out"


def run(params: Params, run: Run) -> None:
    """Train or load the networks, measure their curves and the ceilings, and compare them."""
    train, images = params.data.load_splits()
    loaded = networks.given(params, images, run)
    planned = networks.in_order(params, networks.untrained(params, images) + loaded)
    susceptibility.check(params, planned)
    if params.examples is not None:
        examples.check(params.examples, planned)
    estimates = bounds.densities(params.bounds, train, images, run) if params.bounds is not None else []
    regions = (
        concentration.prepared(params.concentration, params.epsilons, train, images) if params.concentration else None
    )
    generator = generators.built(params.generated, train, run) if params.generated is not None else None
    variants = networks.trained(params, images, run) + loaded
    variants = networks.in_order(params, variants + networks.averaged(params, variants))

    predictions = susceptibility.predictions_of(params, variants, run) if variants else {}
    curves = _measured(params, params.curves, variants, predictions, run) if params.curves is not None else []
    networks.save(params, variants, predictions, run)
    if params.examples is not None:
        _perturbed(params.examples, variants, predictions, run)
    ceilings: list[Ceiling] = []
    if params.bounds is not None:
        ceilings += _bounds(params, params.bounds, estimates, variants, images, run)
    if params.concentration is not None and regions is not None:
        ceilings += _concentration(params, params.concentration, regions, run)
    on_spheres = sphere_measurement.measured(params.spheres, run) if params.spheres is not None else []
    on_generated: list[generated_measurement.Robustness] = []
    if params.generated is not None and params.curves is not None and generator is not None:
        section, attacks = params.generated, params.curves
        on_generated = generated_measurement.measured(params, section, attacks, generator, variants, run)
    raised = alarms(curves, ceilings) + sphere_measurement.alarms(on_spheres)
    raised += generated_measurement.alarms(on_generated)
    for sentence in raised:
        run.warn(sentence)
    if ceilings:
        rows = [row for ceiling in ceilings for row in ceiling.rows()]
        run.table("ceilings", rows, title="What robust accuracy is said not to exceed")
    metrics = _metrics(curves) | _spheres(on_spheres, run) | _generated(on_generated, run)
    run.log(step=run.step, **metrics, alarms=len(raised))


def summarize(trials: Sequence[Trial], run: Run) -> None:
    """The curves of every trial under the ceilings, on one axis for each norm, and a table of them all."""
    trials = [trial for trial in trials if trial.has_results]
    tables = {trial.label: (trial.table("curves"), trial.table("ceilings")) for trial in trials}
    if shown := drawing.panels_of(tables):
        title = "Robust accuracy of networks, and what no network exceeds"
        run.figure("inevitability", figures.curves_under_ceilings(shown), title=title)
    if rows := [{"trial": trial.label, **row} for trial in trials for row in trial.table("summary")]:
        run.table("summary", rows, title="Every curve: median distance and area")
    if rows := [row for trial in trials for row in trial.table("spheres")]:
        lines = [row for trial in trials for row in trial.table("sphere_curves")]
        title = "Concentric spheres: how far errors are, and how far they can be"
        run.figure("spheres", sphere_drawing.spheres(rows, lines), title=title)
    if rows := [{"trial": trial.label, **row} for trial in trials for row in trial.table("generated_curves")]:
        title = "Generated images: how many keep the network's answer, and what no network exceeds"
        run.figure("generated", figures.curves_under_ceilings(drawing.generated_panels(rows)), title=title)


def estimate(params: Params) -> Estimate:
    """What a trial costs."""
    return estimation.estimate(params)


def _measured(
    params: Params, section: CurveParams, variants: list[Variant], predictions: Mapping[str, Tensor], run: Run
) -> list[Curve]:
    """Measure the curves, keep them, and draw what resolutions do."""
    measured = susceptibility.measure(params, section, variants, predictions, run)
    for sentence in susceptibility.doubts(measured, variants, predictions):
        run.warn(sentence)
    curves = [each.curve for each in measured]
    rows = [row for curve in curves for row in curve.rows()]
    run.table("curves", rows, title="Robust accuracy at every epsilon")
    work = [each.curve.summary() | {"queries": each.queries, "gradients": each.gradients} for each in measured]
    run.table("summary", work, title="Every curve: median distance, area, and passes for an image")
    if lines := drawing.resolution_lines(rows):
        growing = [norm for norm in params.epsilons if factor(norm, 2) > 1]
        run.figure("resolutions", figures.resolutions(lines, growing), title="The same images at several resolutions")
        run.table(
            "resolutions", resolution_gaps(curves), title="Differences to resolution 1, epsilon scaled and as it is"
        )
    return curves


def _bounds(
    params: Params,
    section: BoundParams,
    estimates: list[bounds.ClassDensity],
    variants: list[Variant],
    images: ImageSet,
    run: Run,
) -> list[Ceiling]:
    """Say what the theorems say of every class, and what they cannot say."""
    counted = bounds.shares(section, estimates, images.classes, variants, run)
    each = bounds.bounds(section, list(params.epsilons), estimates, counted)
    rows = [bound.row(images.classes) for bound in each]
    run.table("bounds", rows, title="What the bounds say of every class, by every estimate of its density")
    if rows := bounds.share_rows(counted[()], images.classes):
        run.table("shares", rows, title="How much of the cube networks give to each class")
    run.table("facts", bounds.fact_rows(each), title="What the bounds cannot say, whatever the classifier")
    return bounds.ceilings(each, params.epsilons, images)


def _spheres(results: list[Robustness], run: Run) -> dict[str, float]:
    """Keep what was measured on spheres. Returns its metric, of the spheres with a mean distance and a ceiling."""
    if not results:
        return {}
    rows = [each.row() for each in results]
    run.table("spheres", rows, title="Concentric spheres: errors, and mean distances to them")
    lines = [row for each in results for row in each.curve_rows()]
    run.table("sphere_curves", lines, title="Concentric spheres: shares of points without an error within an angle")
    shares = [row["share_of_ceiling"] for row in rows if not math.isnan(row["share_of_ceiling"])]
    return {"spheres": sum(shares) / len(shares)} if shares else {}


def _generated(results: list[generated_measurement.Robustness], run: Run) -> dict[str, float]:
    """Keep what was measured on generated images. Returns its metric, of the networks with both distances."""
    if not results:
        return {}
    run.table("generated", [each.row() for each in results], title="Generated images: what the bound says of networks")
    lines = [row for each in results for row in each.curve_rows()]
    run.table("generated_curves", lines, title="Generated images: robust share at every epsilon, below the ceiling")
    shares = [each.curve.median_distance / each.half for each in results if math.isfinite(each.half)]
    shares = [share for share in shares if math.isfinite(share)]
    return {"generated": sum(shares) / len(shares)} if shares else {}


def _concentration(
    params: Params, section: ConcentrationParams, images: concentration.Images, run: Run
) -> list[Ceiling]:
    """Measure how concentrated the data are."""
    rows = concentration.measured(section, params.epsilons, images, run)
    if not rows:
        run.warn("no search ended with a region that holds enough of the data, so concentration gives no ceiling")
        return []
    run.table("concentration", rows, title="The error regions that grow least, on images not fitted to")
    title = f"How regions with {section.alpha:.3g} of the images grow, by every search"
    run.figure("concentration", figures.growth(drawing.growth_of(rows), section.alpha), title=title)
    return concentration.ceilings(section, rows)


def _perturbed(params: ExampleParams, variants: list[Variant], predictions: Mapping[str, Tensor], run: Run) -> None:
    """Draw images and what perturbations of several norms make of them."""
    variant = examples.chosen(params, variants)
    if shown := examples.perturbed(params, variant, predictions[variant.label], run):
        columns = drawing.columns_of(shown, variant.images)
        title = f"Images, what perturbations make of them, and what {variant.label} says"
        run.figure("examples", figures.perturbed_images(columns), title=title)


def _metrics(curves: Sequence[Curve]) -> dict[str, float]:
    metrics, robust = {}, []
    for curve in curves:
        if curve.resolution == 1:
            metrics[f"clean_{curve.name}"] = curve.accuracies[0]
            metrics[f"robust_{curve.norm}_{curve.name}"] = curve.accuracies[-1]
            metrics[f"area_{curve.norm}_{curve.name}"] = curve.area
            robust.append(curve.accuracies[-1])
    return metrics | ({"robust": sum(robust) / len(robust)} if robust else {})
