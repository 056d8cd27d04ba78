"""What a run writes down of its network: metrics, tables, arrays, and whether it is a minimum."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from jobs.common.curvature.results import keep_spectra, metrics_of
from jobs.common.curvature.spectra import Site, compute_spectra
from jobs.common.curvature.spectra_params import SpectraParams
from jobs.common.data.images.base import ImageSet
from jobs.common.data.images.plane_points import coordinates, frame_of
from jobs.common.mean_loss.plain import MeanScore, score_of
from jobs.common.mean_loss.samples import drawn, normalised
from jobs.common.metrics.classification import predictions
from jobs.common.metrics.intervals import wilson
from jobs.common.models.network_params import TrainedNetwork
from jobs.common.trials import rows_of as metric_rows
from jobs.generalization import figures
from jobs.generalization.boundary import probabilities
from jobs.generalization.margins import MarginParams, margins
from jobs.generalization.minefield.measurement import Minefield
from jobs.generalization.networks import Measured
from jobs.generalization.params import BoundaryParams, Params
from jobs.generalization.sets import Sets
from jobs.generalization.wiggle import Wiggle
from service.run import Run, Trial


@dataclass(frozen=True)
class Scores:
    """Of a network on each set, by the names of the sets."""

    of_set: dict[str, MeanScore]

    @property
    def fitted(self) -> bool:
        """Whether every training image is classified correctly: what is no fit is called no minimum."""
        return self.of_set["training"].accuracy == 1

    def metrics(self) -> dict[str, float]:
        """What is logged of them."""
        metrics: dict[str, float] = {}
        for name, score in self.of_set.items():
            prefix = "clean_train" if name == "training" else name
            metrics |= {f"{prefix}_loss": score.loss, f"{prefix}_accuracy": score.accuracy}
        gap = self.of_set["training"].accuracy - self.of_set["test"].accuracy
        return metrics | {"gap": gap, "fitted": float(self.fitted)}


def scores_of(measured: Measured, sets: Sets, run: Run) -> Scores:
    """The mean cross entropy and the accuracy on every set. RunFailedError if a cell failed."""
    return Scores(
        {
            name: score_of(measured.network, images, "cross_entropy", run, f"{name}_scores")
            for name, images in sets.named.items()
        }
    )


def keep_scores(params: Params, scores: Scores, sets: Sets, run: Run) -> None:
    """Log them, keep them as a table, and say if the network does not fit what it learnt from."""
    run.log(step=run.step + 1 if run.rows else 0, **scores.metrics())
    rows = []
    for name, images in sets.named.items():
        score = scores.of_set[name]
        right = round(score.accuracy * len(images))
        low, high = wilson(right, len(images))
        rows.append(
            {"set": name, "images": len(images), "right": right, "accuracy": score.accuracy, "low": low, "high": high}
            | {"loss": score.loss}
        )
    run.table("sets", rows, title="The network on every set, with 95 % intervals")
    for sentence in sets.doubts:
        run.warn(sentence)
    if not scores.fitted:
        accuracy = scores.of_set["training"].accuracy
        what = "no bad minimum" if params.poison.share else "no minimum"
        run.warn(f"the network fits {accuracy:.2%} of its training images, not all of them: it is called {what}")


def keep_boundary(params: BoundaryParams, measured: Measured, sets: Sets, run: Run) -> None:
    """The map of the plane as arrays, the points in it as a table, and both as a figure."""
    shown = {name: sets.named[name] for name in ("training", "test")}
    values, predicted = run.reserved(_plane, measured.network, params.steps, shown)
    frame = frame_of(sets.training)
    axis = np.linspace(-frame, frame, params.steps)
    run.array("boundary", values, title="probability of each class, (classes, y, x)")
    run.array("boundary_axis", axis, title="coordinates of the map along x and y")
    rows = [
        {"set": name, "x": x, "y": y, "label": label, "predicted": answer}
        for name, images in shown.items()
        for (x, y), label, answer in zip(
            coordinates(images).tolist(), images.labels.tolist(), predicted[name], strict=True
        )
    ]
    run.table("points", rows, title="The points of the plane, and what the network takes them for")
    figure = figures.boundaries([figures.Boundary(measured.name, axis, values, rows)])
    run.figure("boundary", figure, title="What the network says of the plane")


def boundary_of(trial: Trial) -> figures.Boundary | None:
    """The map of a trial that has ended, if it made one."""
    rows = trial.table("points")
    if not rows:
        return None
    return figures.Boundary(trial.label, trial.array("boundary_axis"), trial.array("boundary"), rows)


def _plane(run: Run, network: nn.Module, steps: int, sets: dict[str, ImageSet]) -> tuple[np.ndarray, Any]:
    """The map, and the classes that the network takes the images of each set for."""
    network = network.to(run.device).eval()
    answers = {name: predictions(network, images, len(images)).tolist() for name, images in sets.items()}
    return probabilities(network, steps).numpy(), answers


def rows_of(trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """A row a trial: its share of poison and its metrics."""
    rows = zip(trials, metric_rows(trials), strict=True)
    return [{"trial": trial.label, "poison": trial.params.poison.share, **row} for trial, row in rows]


def samples_of(trials: Sequence[Trial]) -> list[figures.Sample]:
    """What the networks that were trained here came to."""
    return [
        figures.Sample(
            trial.params.poison.share,
            trial.metrics["clean_train_accuracy"],
            trial.metrics["test_accuracy"],
            bool(trial.metrics["fitted"]),
        )
        for trial in trials
        if isinstance(trial.params.network, TrainedNetwork)
    ]


def keep_minefield(field: Minefield, run: Run) -> None:
    """The map as a table and a figure; how good the bad ones are as metrics."""
    rows = field.rows()
    run.table("minefield", rows, title="Every state of the good training, and what training with poison made of it")
    fitted = [row for row in rows if row["fitted"]]
    run.log(
        step=run.step + 1,
        bad_minima=len(fitted),
        unfitted=len(rows) - len(fitted),
        **({"bad_test_accuracy": max(row["test"] for row in fitted)} if fitted else {}),
    )
    if len(fitted) < len(rows):
        run.warn(
            f"{len(rows) - len(fitted)} of {len(rows)} networks trained with poison do not fit all training images: "
            "they are called no bad minima"
        )
    run.figure("minefield", figures.minefield(rows, field.explained), title="Bad minima around the path of training")


def keep_curvature(params: SpectraParams, measured: Measured, sets: Sets, run: Run) -> None:
    """The Hessian on training images, drawn once, as metrics, tables and figures."""
    chosen = drawn(sets.training, min(params.images, len(sets.training)), run.seed_for("spectra"))
    network, samples = normalised(measured.network, sets.training, chosen)
    spectra = compute_spectra(Site(network, samples.images, samples.labels), params, run)
    run.log(step=run.step, **metrics_of(spectra))
    keep_spectra(spectra, measured.name, run)


def keep_margins(params: MarginParams, measured: Measured, sets: Sets, run: Run) -> None:
    """The distance of every training point to the boundary, in coordinates of the data, as a table and a figure."""
    side = 2 * frame_of(sets.training)
    distances = side * run.reserved(_margins, measured.network, sets.training, params)
    points = zip(coordinates(sets.training).tolist(), sets.training.labels.tolist(), distances.tolist(), strict=True)
    rows = [{"x": x, "y": y, "label": label, "margin": distance} for (x, y), label, distance in points]
    run.table("margins", rows, title="How far training points are from the nearest place of another class")
    run.log(step=run.step + 1, margin=float(np.median(distances)), least_margin=float(distances.min()))
    if endless := int(np.isinf(distances).sum()):
        run.warn(f"{endless} training points see no other class on any ray: their margin is infinite")


def margins_of(trials: Sequence[Trial]) -> dict[str, np.ndarray]:
    """The margins that trials have measured, by their labels."""
    tables = {trial.label: trial.table("margins") for trial in trials}
    return {label: np.array([row["margin"] for row in rows]) for label, rows in tables.items() if rows}


def _margins(run: Run, network: nn.Module, images: ImageSet, params: MarginParams) -> np.ndarray:
    return margins(network.to(run.device).eval(), images.images(torch.arange(len(images))), params).numpy()


def groups_of(trials: Sequence[Trial]) -> list[figures.Group]:
    """Trials by their variants, whose other trials differ in what the grid says, such as the seed."""
    by_variant: dict[str, list[Trial]] = {}
    for trial in trials:
        by_variant.setdefault(trial.variant or trial.label, []).append(trial)
    return [
        figures.Group(
            label,
            [trial.metrics["clean_train_accuracy"] for trial in some],
            [trial.metrics["test_accuracy"] for trial in some],
            [bool(trial.metrics["fitted"]) for trial in some],
        )
        for label, some in by_variant.items()
    ]


def keep_wiggle(moved: Wiggle, sets: Sets, run: Run) -> None:
    """What was measured as a table and a figure, and the way there and back as an animation."""
    run.table("wiggle", moved.rows(), title="Loss, accuracy and curvature along a random direction")
    frame = frame_of(sets.training)
    points = [
        {"set": "training", "x": x, "y": y, "label": label, "predicted": label}
        for (x, y), label in zip(coordinates(sets.training).tolist(), sets.training.labels.tolist(), strict=True)
    ]
    axis = np.linspace(-frame, frame, moved.maps.shape[-1])
    frames = figures.wiggle_frames(moved.rows(), axis, moved.maps, points)
    run.animation(
        "wiggle", [*frames, *frames[-2:0:-1]], 0.08, title="The boundary while the weights move there and back"
    )
