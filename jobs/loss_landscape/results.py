"""What a run writes down: metrics, arrays, tables, figures and files."""

import math

import numpy as np

from jobs.common.mean_loss.plain import MeanScore
from jobs.common.models.directions import cosine
from jobs.common.models.weights import tensors
from jobs.common.trials import label_without_repeats
from jobs.loss_landscape import figures
from jobs.loss_landscape.drawing.content import CurvatureMap, Curve, Landscape, Path
from jobs.loss_landscape.drawing.interactive import interactive
from jobs.loss_landscape.files import direction_file
from jobs.loss_landscape.files.exchange import export_directions, export_surface, export_vtp, import_surface
from jobs.loss_landscape.networks import LandscapeNetwork
from jobs.loss_landscape.params import Params
from jobs.loss_landscape.planes.axes import Axes
from jobs.loss_landscape.planes.path import TrainingPath
from jobs.loss_landscape.surface.computation import Surface
from jobs.loss_landscape.surface.curvature_map import Curvature
from service.errors import InputError
from service.run import Run, Trial

DISAGREEMENT = 0.02  # of the centre's loss with the recorded one, relative, from which a run warns


def keep_directions(params: Params, axes: Axes, centre: LandscapeNetwork, run: Run) -> None:
    """The directions as a file that a later run around the same network can read."""
    run.file(
        "directions.safetensors",
        direction_file.encode(axes.directions, tensors(centre.network), axes.made),
        title=f"The directions, {axes.made}: for plane.kind file",
    )
    if "h5" in params.export:
        export_directions(axes.directions, centre.network, run)


def keep_surface(
    params: Params, centre: LandscapeNetwork, axes: Axes, surface: Surface, score: MeanScore, run: Run
) -> None:
    """The surface as metrics, arrays, figures and files. score: of the centre over the whole split."""
    _log(axes, surface, score, run)
    run.table("about", _about(params, axes, surface), title="How the surface was computed")
    expected = params.recorded_loss
    if expected is None and params.evaluation.loss == centre.recorded_as:
        expected = centre.recorded.get(params.split)
    if not math.isfinite(score.loss):
        run.warn(f"the loss at the centre is {score.loss}: the network answers some images with NaN or infinity")
    elif expected is not None and not abs(score.loss - expected) <= DISAGREEMENT * max(abs(expected), 1e-3):
        run.warn(
            f"the loss at the centre is {score.loss:.6g}, but {expected:.6g} is recorded: other data, another "
            "normalisation or other weights than it was trained with"
        )
    _keep(params, surface, centre.name, run)


def keep_surface_file(params: Params, path: str, run: Run) -> None:
    """A surface that was computed elsewhere, as one that was computed here. InputError if it cannot be read."""
    file = import_surface(path)
    if (name := f"{params.split}_loss") not in file.values:
        raise InputError(f"surface_file {path!r} must hold {name}; it holds {', '.join(file.values)}")
    values = {key: np.atleast_2d(array) for key, array in file.values.items()}
    loss, unknown = values[name], np.full(values[name].shape, np.nan)
    surface = Surface(
        x=file.x,
        y=file.y,
        loss=loss,
        accuracy=values.get(f"{params.split}_acc", unknown) / 100,
        error=unknown,
        measured=~np.isnan(loss),
        censored=np.zeros(loss.shape, dtype=bool),
        images=np.zeros(loss.shape, dtype=np.int64),
        not_finite=int((~np.isfinite(loss)).sum()),
        deviations=np.empty(0),
        samples=0,
        population=0,
        policy=None,
    )
    run.log(step=0, points=int(surface.measured.sum()), not_finite=surface.not_finite, **_heights(loss))
    run.table("about", [{"what": "surface", "value": f"of {path}"}], title="How the surface was computed")
    _keep(params, surface, path.rpartition("/")[2], run)


def keep_path(path: TrainingPath, surface: Surface, axes: Axes, centre: LandscapeNetwork, run: Run) -> None:
    """The path of training as a table and over the surface."""
    assert surface.y is not None
    columns = zip(path.epochs, path.coordinates, path.loss, path.projected_loss, strict=True)
    rows = [
        {"epoch": epoch, "x": float(x), "y": float(y), "loss": float(loss), "loss_in_plane": float(projected)}
        for epoch, (x, y), loss, projected in columns
    ]
    run.table("path", rows, title="The path of training")
    drawn = Path(
        path.coordinates,
        np.array(path.epochs),
        path.loss,
        path.projected_loss,
        (axes.explained[0], axes.explained[1]),
    )
    landscape = Landscape(
        centre.name, surface.x, surface.y, surface.loss, surface.censored, ("axis 1", "axis 2"), surface.measured
    )
    run.figure("trajectory", figures.trajectory(landscape, drawn), title="The path of training over the loss")


def keep_curvature(params: Params, curvature: Curvature, centre: LandscapeNetwork, run: Run) -> None:
    """The Hessian's extreme eigenvalues as arrays and as a figure."""
    smallest, largest, grid = curvature.smallest, curvature.largest, curvature.grid
    run.array("smallest_eigenvalue", smallest, title="smallest eigenvalue of the Hessian")
    run.array("largest_eigenvalue", largest, title="largest eigenvalue of the Hessian")
    if "h5" in params.export:
        y = None if grid.y is None else grid.y.coordinates
        export_surface("curvature", grid.x.coordinates, y, {"min_eig": smallest, "max_eig": largest}, run)
    if grid.y is None:
        drawn = CurvatureMap(centre.name, grid.x.coordinates, None, smallest[0], largest[0])
    else:
        drawn = CurvatureMap(centre.name, grid.x.coordinates, grid.y.coordinates, smallest, largest)
    run.figure("curvature", figures.eigenvalue_ratios([drawn]), title="Ratio of the Hessian's extreme eigenvalues")


def is_line(trial: Trial) -> bool:
    """Whether a trial has a line rather than a surface."""
    return len(trial.array("loss")) == 1


def landscape_of(trial: Trial) -> Landscape:
    """The surface of a trial that has ended."""
    x, y, loss, censored, measured = (trial.array(name) for name in ("x", "y", "loss", "censored", "measured"))
    return Landscape(trial.label, x, y, loss, censored, measured=measured)


def curve_of(trial: Trial) -> Curve:
    """The line of a trial that has ended."""
    loss, accuracy, error = (trial.array(name)[0] for name in ("loss", "accuracy", "error"))
    label = label_without_repeats(trial, ("seed", "draw"))
    return Curve(label, trial.array("x"), loss, accuracy, error, trial.params.split == "test")


def _log(axes: Axes, surface: Surface, score: MeanScore, run: Run) -> None:
    metrics = {
        "centre_loss": score.loss,
        "centre_accuracy": score.accuracy,
        "points": int(surface.measured.sum()),
        "images_per_point": float(surface.images[surface.images > 0].mean()),
        "not_finite": surface.not_finite,
        "censored": int(surface.censored.sum()),
        **_heights(surface.loss),
    }
    if len(surface.deviations):
        metrics["deviation"] = surface.deviations.max()
    if len(axes.directions) == 2:
        metrics["cosine"] = cosine(*axes.directions)
    run.log(step=run.step + 1 if run.rows else 0, **metrics)


def _heights(loss: np.ndarray) -> dict[str, float]:
    """Of the finite losses on a surface; empty if there are none."""
    finite = loss[np.isfinite(loss)]
    if not len(finite):
        return {}
    return {"lowest": finite.min(), "median": float(np.median(finite)), "highest": finite.max()}


def _about(params: Params, axes: Axes, surface: Surface) -> list[dict[str, str | None]]:
    """How the surface was computed, as rows of a table."""
    mean = f"mean over {surface.samples:,} of {surface.population:,} images ({params.split})"
    rows: list[dict[str, str | None]] = [
        {"what": "directions", "value": axes.made},
        {"what": "loss", "value": f"{params.evaluation.loss}, {mean}"},
        {"what": "evaluation", "value": surface.policy},
    ]
    if len(surface.deviations):
        median, most = np.median(surface.deviations), surface.deviations.max()
        error = f"median {median:.2g}, largest {most:.2g}, of {len(surface.deviations)} points computed in float32"
        rows.append({"what": "relative error of bfloat16", "value": error})
    return rows


def _keep(params: Params, surface: Surface, title: str, run: Run) -> None:
    """A surface as arrays, figures and files."""
    for name in ("loss", "accuracy", "error", "measured", "censored"):
        run.array(name, getattr(surface, name), title=f"{name}, (steps_y, steps_x)")
    run.array("x", surface.x, title="coordinates along x")
    if surface.y is not None:
        run.array("y", surface.y, title="coordinates along y")
    _draw(params, surface, title, run)
    if "h5" in params.export:
        values = {f"{params.split}_loss": surface.loss, f"{params.split}_acc": 100 * surface.accuracy}
        export_surface("surface", surface.x, surface.y, values, run)
    if "vtp" in params.export and surface.y is not None:
        export_vtp(surface.loss, surface.x, surface.y, params.vtp, run)


def _draw(params: Params, surface: Surface, title: str, run: Run) -> None:
    if surface.y is None:
        curve = Curve(title, surface.x, surface.loss[0], surface.accuracy[0], surface.error[0], params.split == "test")
        run.figure("curve", figures.curves([curve]), title="Loss and accuracy along the line")
    else:
        landscape = Landscape(title, surface.x, surface.y, surface.loss, surface.censored, measured=surface.measured)
        run.figure("contour", figures.contours([landscape]), title="Contours of the loss")
        run.figure("surface", figures.surfaces([landscape]), title="The loss as a surface")
        run.html("surface", interactive(surface.loss, surface.x, surface.y, title), title="The loss, to be turned")
