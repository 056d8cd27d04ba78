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

Specs to begin with: configs/loss_landscape/.

Source: Li et al. 2018, "Visualizing the Loss Landscape of Neural Nets".
"""

from collections.abc import Sequence
from typing import Any, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator

from jobs.common.data.images import DATASETS, DataParams
from jobs.common.data.images.base import ImageSet, Split
from jobs.common.imports import resolve
from jobs.common.models.classifiers import ARCHITECTURES
from jobs.common.models.network_params import StoredNetwork, TrainedNetwork
from jobs.common.models.weights import tensors
from jobs.common.params import StudyParams
from jobs.loss_landscape import estimation, figures
from jobs.loss_landscape.curvature import Neighbourhood, curvature_at
from jobs.loss_landscape.data import as_seen, draw
from jobs.loss_landscape.directions import cosine, moved
from jobs.loss_landscape.evaluation import LOSSES, EvaluatorParams
from jobs.loss_landscape.files import direction_file
from jobs.loss_landscape.files.surface_files import SurfaceFile, vtk_polydata, write_surface
from jobs.loss_landscape.grid import AxisParams, GridParams
from jobs.loss_landscape.interactive import interactive
from jobs.loss_landscape.networks import Found, NetworkParams, find
from jobs.loss_landscape.planes import Axes, ModelPlane, PlaneParams, RandomPlane, TrajectoryPlane, axes_of, others
from jobs.loss_landscape.refinement import RefinementParams
from jobs.loss_landscape.surface import Subject, Surface, Whole, compute_surface, plain_means, policy_of
from jobs.loss_landscape.trajectory import project, surrounding
from service.errors import InputError
from service.models import CardDraft, TensorSpec
from service.run import Run, Trial

PLACEMENT = "fan_out"
DISAGREEMENT = 0.02  # of the centre's loss with the recorded one, relative, from which a run warns


class CurvatureParams(StudyParams):
    """A map of the Hessian's extreme eigenvalues, over the bounds of the surface (Li et al. 2018, section 6)."""

    steps: int = Field(13, ge=2, le=1000, description="points along each axis; each costs hundreds of the surface's")
    images: int = Field(1000, ge=1, description="images that the Hessian is computed on, at most")


class Params(StudyParams):
    """A network, a line or a plane through its weights, and the images that the loss is the mean over."""

    network: NetworkParams = Field(TrainedNetwork(), description="the network at the centre")
    data: DataParams = Field(DataParams(), description="the images")
    split: Split = Field("train", description="which of them the loss is computed on")
    images: int | None = Field(
        None, ge=2, description="images of the split to draw, the same for all points; none: all of them"
    )
    plane: PlaneParams = Field(RandomPlane(), description="the directions")
    grid: GridParams = Field(GridParams(), description="the points, in units of the directions")
    refinement: RefinementParams | None = Field(
        None, description="measure a coarse grid first and more only where it matters; none: every point"
    )
    evaluation: EvaluatorParams = Field(EvaluatorParams(), description="how a point is computed")
    curvature: CurvatureParams | None = Field(None, description="also a map of the Hessian's eigenvalues; none: no")
    recorded_loss: float | None = Field(
        None, description="mean loss that the network is known to have on the split; a run warns if it has another"
    )
    export: tuple[Literal["h5", "vtp"], ...] = Field(
        (), description="also as files: h5 of the released code of Li et al. 2018, vtp for ParaView"
    )
    publish_as: str = Field("", description="name of a network trained here in the model store; default: made of both")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        """What is named exists, and the parts know each other."""
        try:
            resolve(self.data.name, DATASETS, "data set")
            resolve(self.evaluation.loss, LOSSES, "loss")
            for each in (self.network, *others(self.plane).values()):
                if not isinstance(each, StoredNetwork):
                    resolve(each.classifier.name, ARCHITECTURES, "classifier")
        except InputError as error:
            raise ValueError(str(error)) from error
        if isinstance(self.plane, ModelPlane) and (self.plane.y is None) != (self.grid.y is None):
            raise ValueError("plane.y and grid.y: a plane through three networks needs both, a line neither")
        if isinstance(self.plane, TrajectoryPlane) and (
            not isinstance(self.network, TrainedNetwork) or self.network.training.keep_every is None
        ):
            raise ValueError("plane: a trajectory needs a network that is trained here, with training.keep_every")
        if self.export and "vtp" in self.export and self.grid.y is None:
            raise ValueError("export: vtp is for surfaces, this is a line")
        return self

    @property
    def model_name(self) -> str:
        """Under which name a network trained here is published."""
        assert isinstance(self.network, TrainedNetwork)
        data, network = (name.rpartition(":")[2] for name in (self.data.name, self.network.classifier.name))
        return self.publish_as or f"{data}-{network}-landscape".replace("_", "-").lower()


def run(params: Params, run: Run) -> None:
    """Find the network, choose the directions, compute the surface, and draw it."""
    images = params.data.load(params.split)
    found = find({"": params.network, **others(params.plane)}, params.data, images, run)
    centre = found[""]
    if centre.trained:
        centre = _after_training(params, centre, run)

    chosen = draw(images, params.images, run.seed_for("images"))
    network, points = as_seen(centre.network, images, chosen)
    axes = axes_of(params.plane, params.grid.axes, found, points.images, points.labels, params.evaluation.loss, run)
    run.file(
        "directions.safetensors",
        direction_file.encode(axes.directions, tensors(centre.network), axes.made),
        title=f"The directions, {axes.made}: for plane.kind file",
    )
    grid = _around_path(params.grid, params.plane, axes, centre) if axes.explained else params.grid
    subject = Subject(network, axes.directions, points.images, points.labels, len(images), params.evaluation)
    surface = compute_surface(subject, grid, params.refinement, run)

    whole_network, everything = as_seen(centre.network, images, torch.arange(len(images)))
    whole = Whole(whole_network, [{}], everything.images, everything.labels, params.evaluation.loss)
    ((loss, accuracy),) = plain_means(whole, run, "centre")
    _tell(params, surface, axes, centre, loss, accuracy, subject, run)
    title = centre.name
    _draw(params, surface, title, run)
    if axes.explained and grid.y is not None:
        _draw_path(surface, axes, centre, subject, run)
    if params.curvature is not None:
        _map_curvature(params.curvature, grid, subject, title, run)


def estimate(params: Params) -> dict[str, Any]:
    """What a trial would compute and how long it would take, for `assay check`."""
    return estimation.estimate(params.network, params.data, params.split, params.images, params.grid, params.evaluation)


def summarize(trials: Sequence[Trial], run: Run) -> None:
    """Every trial's numbers, and the surfaces side by side on one scale."""
    finished = [trial for trial in trials if trial.status in ("finished", "partial")]
    if not finished:
        return
    columns = sorted({name for trial in finished for name in trial.metrics})
    run.table(
        "results",
        [{"trial": trial.label, **{name: trial.metrics.get(name) for name in columns}} for trial in finished],
        title="Every trial",
    )
    lines = [_curve(trial) for trial in finished if trial.params.grid.y is None]
    if lines:
        run.figure("curves", figures.curves(lines), title="Loss and accuracy along the line")
    planes = [_landscape(trial) for trial in finished if trial.params.grid.y is not None]
    if planes:
        run.figure("contours", figures.contours(planes), title="Contours of the loss, the same for all")
        run.figure("surfaces", figures.surfaces(planes), title="The surfaces on one scale")
        run.figure("heat", figures.heat_maps(planes), title="Every point in the colour of its loss")


def _after_training(params: Params, centre: Found, run: Run) -> Found:
    """Score a network that was trained here on both splits, and save it."""
    recorded: dict[Split, float] = {}
    metrics: dict[str, float] = {}
    splits: tuple[tuple[Split, str], ...] = (("train", "clean_train"), ("test", "test"))
    for split, name in splits:
        images = params.data.load(split)
        network, points = as_seen(centre.network, images, torch.arange(len(images)))
        whole = Whole(network, [{}], points.images, points.labels, params.evaluation.loss)
        ((recorded[split], accuracy),) = plain_means(whole, run, f"{split}_scores")
        metrics |= {f"{name}_loss": recorded[split], f"{name}_accuracy": accuracy}
    run.log(step=run.step, **metrics)
    run.save_model(params.model_name, centre.network, _card(params, images, recorded, run.metrics))
    return Found(centre.name, centre.network, recorded, centre.path, centre.epochs, trained=True)


def _around_path(grid: GridParams, plane: PlaneParams, axes: Axes, centre: Found) -> GridParams:
    """The grid with bounds that hold the path of training."""
    assert isinstance(plane, TrajectoryPlane)
    coordinates = project(centre.path, centre.path[-1], axes.directions).coordinates
    bounds = surrounding(coordinates, plane.margin)
    sides = [
        None if side is None else AxisParams(low=low, high=high, steps=side.steps)
        for side, (low, high) in zip((grid.x, grid.y), [*bounds, (0.0, 0.0)][:2], strict=True)
    ]
    assert sides[0] is not None
    return GridParams(x=sides[0], y=sides[1])


def _tell(
    params: Params,
    surface: Surface,
    axes: Axes,
    centre: Found,
    loss: float,
    accuracy: float,
    subject: Subject,
    run: Run,
) -> None:
    """Log what was computed, keep the numbers, and warn of what does not fit."""
    finite = surface.loss[np.isfinite(surface.loss)]
    shape = {"lowest": finite.min(), "median": np.median(finite), "highest": finite.max()} if len(finite) else {}
    checked = {"deviation": surface.deviations.max()} if len(surface.deviations) else {}
    angle = {"cosine": cosine(*axes.directions)} if len(axes.directions) == 2 else {}
    run.log(
        step=run.step + 1 if run.rows else 0,
        centre_loss=loss,
        centre_accuracy=accuracy,
        points=int(surface.measured.sum()),
        images_per_point=float(surface.images[surface.measured].mean()),
        not_finite=surface.not_finite,
        censored=int(surface.censored.sum()),
        **shape,
        **checked,
        **angle,
    )
    for name in ("loss", "accuracy", "error", "measured", "censored"):
        run.array(name, getattr(surface, name), title=f"{name}, (steps_y, steps_x)")
    run.array("x", surface.x, title="coordinates along x")
    if surface.y is not None:
        run.array("y", surface.y, title="coordinates along y")
    (policy,) = run.map(policy_of, [params.evaluation.precision], shared=subject, name="policy")
    rows = [
        {"what": "directions", "value": axes.made},
        {
            "what": "loss",
            "value": f"{params.evaluation.loss}, mean over {len(subject.labels):,} of "
            f"{subject.population:,} images ({params.split})",
        },
        {"what": "evaluation", "value": policy},
    ]
    if len(surface.deviations):
        median, most = np.median(surface.deviations), surface.deviations.max()
        told = f"median {median:.2g}, largest {most:.2g}, of {len(surface.deviations)} points computed in float32"
        rows.append({"what": "relative error of bfloat16", "value": told})
    run.table("about", rows, title="How the surface was computed")
    expected = params.recorded_loss if params.recorded_loss is not None else centre.recorded.get(params.split)
    if expected is not None and not abs(loss - expected) <= DISAGREEMENT * max(abs(expected), 1e-3):
        sentence = (
            f"the loss at the centre is {loss:.6g}, but {expected:.6g} is recorded: other data, another normalisation "
            "or other weights than it was trained with"
        )
        run.warn(sentence)


def _draw(params: Params, surface: Surface, title: str, run: Run) -> None:
    """The surface as figures and as files."""
    if surface.y is None:
        curve = figures.Curve(
            title, surface.x, surface.loss[0], surface.accuracy[0], surface.error[0], params.split == "test"
        )
        run.figure("curve", figures.curves([curve]), title="Loss and accuracy along the line")
    else:
        landscape = figures.Landscape(
            title, surface.x, surface.y, surface.loss, surface.censored, measured=surface.measured
        )
        run.figure("contour", figures.contours([landscape]), title="Contours of the loss")
        run.figure("surface", figures.surfaces([landscape]), title="The loss as a surface")
        run.html("surface", interactive(surface.loss, surface.x, surface.y, title), title="The loss, to be turned")
    if "h5" in params.export:
        line = surface.y is None
        values = {f"{params.split}_loss": surface.loss, f"{params.split}_acc": 100 * surface.accuracy}
        values = {name: array[0] if line else array for name, array in values.items()}
        run.file("surface.h5", write_surface(SurfaceFile(surface.x, surface.y, values)), title="As HDF5")
    if "vtp" in params.export and surface.y is not None:
        text = vtk_polydata(surface.loss, surface.x, surface.y, log=figures.is_wide(surface.loss))
        run.file("surface.vtp", text.encode(), title="For ParaView")


def _draw_path(surface: Surface, axes: Axes, centre: Found, subject: Subject, run: Run) -> None:
    """The path of training over the surface, with the loss of its states and of the points where they are drawn."""
    assert surface.y is not None
    start = tensors(centre.network)
    coordinates = project(centre.path, centre.path[-1], axes.directions).coordinates
    projected = [moved(start, axes.directions, at) for at in coordinates.tolist()]
    states = [*({name: state[name] for name in start} for state in centre.path), *projected]
    whole = Whole(subject.network, states, subject.images, subject.labels, subject.params.loss)
    losses = np.array([loss for loss, _ in plain_means(whole, run, "path")])
    count = len(centre.path)
    run.table(
        "path",
        [
            {"epoch": epoch, "x": float(x), "y": float(y), "loss": float(loss), "loss_in_plane": float(inside)}
            for epoch, (x, y), loss, inside in zip(
                centre.epochs, coordinates, losses[:count], losses[count:], strict=True
            )
        ],
        title="The path of training",
    )
    path = figures.Path(
        coordinates,
        np.array(centre.epochs),
        losses[:count],
        losses[count:],
        (axes.explained[0], axes.explained[1]),
    )
    landscape = figures.Landscape(
        centre.name, surface.x, surface.y, surface.loss, surface.censored, ("axis 1", "axis 2"), surface.measured
    )
    run.figure("trajectory", figures.trajectory(landscape, path), title="The path of training over the loss")


def _map_curvature(params: CurvatureParams, surface_grid: GridParams, subject: Subject, title: str, run: Run) -> None:
    """The Hessian's extreme eigenvalues over the bounds of the surface."""
    sides = [
        None if side is None else side.model_copy(update={"steps": params.steps})
        for side in (surface_grid.x, surface_grid.y)
    ]
    assert sides[0] is not None
    grid = GridParams(x=sides[0], y=sides[1])
    some = slice(0, params.images)
    shared = Neighbourhood(
        subject.network,
        subject.axes,
        subject.images[some],
        subject.labels[some],
        run.seed_for("curvature"),
        resolve(subject.params.loss, LOSSES, "loss"),
    )
    rows, columns = grid.shape
    cells = [grid.point(row, column) for row in range(rows) for column in range(columns)]
    found = run.map(curvature_at, cells, shared=shared, name="curvature")
    smallest, largest = (
        np.array([np.nan if each is None else each[name] for each in found]).reshape(grid.shape)
        for name in ("smallest", "largest")
    )
    run.array("smallest_eigenvalue", smallest, title="smallest eigenvalue of the Hessian")
    run.array("largest_eigenvalue", largest, title="largest eigenvalue of the Hessian")
    y = None if grid.y is None else grid.y.coordinates
    over = (smallest[0], largest[0]) if y is None else (smallest, largest)
    drawn = figures.CurvatureMap(title, grid.x.coordinates, y, *over)
    run.figure("curvature", figures.eigenvalue_ratios([drawn]), title="Ratio of the Hessian's extreme eigenvalues")


def _landscape(trial: Trial) -> figures.Landscape:
    x, y, loss, censored, measured = (trial.array(name) for name in ("x", "y", "loss", "censored", "measured"))
    return figures.Landscape(trial.label, x, y, loss, censored, measured=measured)


def _curve(trial: Trial) -> figures.Curve:
    loss, accuracy, error = (trial.array(name)[0] for name in ("loss", "accuracy", "error"))
    label = trial.variant or "all"
    return figures.Curve(label, trial.array("x"), loss, accuracy, error, trial.params.split == "test")


def _card(params: Params, images: ImageSet, recorded: dict[Split, float], metrics: dict[str, float]) -> CardDraft:
    assert isinstance(params.network, TrainedNetwork)
    classifier = params.network.classifier
    return CardDraft(
        architecture=classifier.architecture,
        arguments=classifier.arguments(images),
        study="loss_landscape",
        task="classification",
        inputs=(TensorSpec(name="images", datatype="FP32", shape=(-1, *images.shape)),),
        outputs=(TensorSpec(name="logits", datatype="FP32", shape=(-1, len(images.classes))),),
        settings={"classes": list(images.classes), "data": params.data.name, "losses": recorded},
        metrics=metrics,
        description=f"{images.name} by {classifier.name.rpartition(':')[2]}, {params.network.training.epochs} epochs",
    )
