"""The whole study on a tiny scale, and parameters and files that cannot work."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from jobs.common.models import network_params
from jobs.common.models.classifiers import classifier
from jobs.loss_landscape import results
from jobs.loss_landscape.files.exchange import export_vtp
from jobs.loss_landscape.files.paraview import VtpParams
from jobs.loss_landscape.files.surface_files import SurfaceFile, read_surface, write_surface
from jobs.loss_landscape.job import run, summarize
from jobs.loss_landscape.params import Params
from service import models
from service.errors import AssayError, InputError, RunFailedError, SpecError
from service.execution.checkpoints import decode
from service.planning.validation import validate
from service.run import Run, Trial
from service.store import open_store
from tests.jobs.shared import draft

OPTIMIZER = {"kind": "sgd", "learning_rate": 0.05, "nesterov": True}
TRAINED = {
    "kind": "train",
    "classifier": {"name": "digits_net", "options": {"mean": [0.3], "std": [0.4]}},
    "training": {"epochs": 2, "batch": 50, "optimizer": OPTIMIZER, "augmentation": {"padding": 0, "flip": False}},
}
DATA = {"name": "digits", "train_limit": 200, "test_limit": 60}
PLANE = {"x": {"steps": 4}, "y": {"low": -0.5, "steps": 3}}


def params(**changes: Any) -> Params:
    return validate(Params, {"data": DATA, "network": TRAINED, "grid": PLANE, **changes}, "params")


def test_one_spec_trains_a_network_and_draws_its_surface(make_run, tmp_path):
    handle = make_run()
    run(params(images=50, export=["h5", "vtp"], evaluation={"precision": "bfloat16"}), handle)
    assert handle.metrics["points"] == 12 and handle.metrics["images_per_point"] == 50
    # the centre is over all the images, as the network is written; as many as there were after training
    assert handle.metrics["centre_loss"] == pytest.approx(handle.metrics["clean_train_loss"], rel=1e-5)
    assert not handle.written.warnings
    folder = handle.folder
    for path in ("figures/contour.png", "figures/surface.png", "pages/surface.html", "files/surface_loss.vtp"):
        assert folder.exists(path)
    loss = read_array(handle, "loss")
    assert loss.shape == (3, 4)
    saved = read_surface(folder.read("files/surface.h5"))
    assert np.array_equal(saved.values["train_loss"], loss) and len(saved.x) == 4

    store = open_store(str(tmp_path / "store"))
    staged = decode(folder.read("models/digits-digits-net-landscape.safetensors"))
    card = models.publish(store, "net", staged["weights"], models.CardDraft(**staged["draft"]))
    again = Run(open_store(str(tmp_path)) / "again", 0, store=store)
    stored = params(network={"kind": "model", "name": "net"}, images=50)
    run(stored, again)
    np.testing.assert_allclose(read_array(again, "loss"), loss, rtol=0.02)  # the same directions, in float32
    assert card.settings["losses"]["train"] == pytest.approx(again.metrics["centre_loss"], rel=1e-5)

    # directions are used again, for the same model only
    file = tmp_path / "directions.safetensors"
    file.write_bytes(again.folder.read("files/directions.safetensors"))
    third = Run(open_store(str(tmp_path)) / "third", 99, store=store)
    run(params(network={"kind": "model", "name": "net"}, plane={"kind": "file", "path": str(file)}), third)
    fourth = Run(open_store(str(tmp_path)) / "fourth", 0, store=store)
    run(stored.model_copy(update={"images": None}), fourth)
    assert np.array_equal(read_array(third, "loss"), read_array(fourth, "loss"))
    with pytest.raises(InputError, match="is stale"):
        run(params(plane={"kind": "file", "path": str(file)}), make_run("other", seed=5))

    # another loss than that which the card tells of is not compared with it
    other = Run(open_store(str(tmp_path)) / "other_loss", 0, store=store)
    run(params(network={"kind": "model", "name": "net"}, images=50, evaluation={"loss": "mse"}), other)
    assert card.settings["loss"] == "cross_entropy" and not other.written.warnings

    # a network whose loss is not the recorded one
    warned = Run(open_store(str(tmp_path)) / "warned", 0, store=store)
    run(stored.model_copy(update={"recorded_loss": 0.001}), warned)
    (warning,) = warned.written.warnings
    assert "but 0.001 is recorded" in warning


def test_a_line_between_two_networks_begins_and_ends_with_them(make_run):
    handle = make_run()
    other = json.loads(json.dumps(TRAINED)) | {"training": {"epochs": 1, "batch": 200, "optimizer": OPTIMIZER}}
    grid = {"x": {"low": 0.0, "high": 1.0, "steps": 3}}
    run(params(plane={"kind": "models", "x": other}, grid=grid), handle)
    loss = read_array(handle, "loss")
    assert loss[0, 0] == pytest.approx(handle.metrics["centre_loss"], rel=1e-4)
    assert handle.folder.exists("figures/curve.png")
    assert {"train_loss", "x_train_loss"} <= handle.metrics.keys()
    # the other one is that which a run of its own seed and role trains: it is not the centre
    assert loss[0, 2] != pytest.approx(loss[0, 0], rel=1e-3)


def test_the_path_of_training_is_drawn_over_its_plane(make_run):
    handle = make_run()
    network = {**TRAINED, "training": {**TRAINED["training"], "epochs": 4, "keep_every": 1}}
    plane, curvature = {"kind": "trajectory"}, {"steps": 2, "images": 20}
    grid = {"x": {"steps": 4}, "y": {"steps": 3}}
    run(params(network=network, plane=plane, grid=grid, curvature=curvature, export=["h5"]), handle)
    extremes = read_surface(handle.folder.read("files/curvature.h5")).values
    assert np.array_equal(extremes["max_eig"], read_array(handle, "largest_eigenvalue"))
    rows = handle.folder.read_table("tables/path.parquet").to_pylist()
    assert [row["epoch"] for row in rows] == [0, 1, 2, 3, 4]
    assert rows[-1]["x"] == pytest.approx(0, abs=1e-6) and rows[-1]["y"] == pytest.approx(0, abs=1e-6)
    assert rows[-1]["loss"] == pytest.approx(rows[-1]["loss_in_plane"], rel=1e-4)
    x, y = read_array(handle, "x"), read_array(handle, "y")
    assert all(x[0] < row["x"] < x[-1] and y[0] < row["y"] < y[-1] for row in rows)
    assert handle.folder.exists("figures/trajectory.png") and handle.folder.exists("figures/curvature.png")


def test_eigenvectors_of_the_hessian_are_axes(make_run):
    handle = make_run()
    run(params(plane={"kind": "eigenvectors", "images": 20}, grid={"x": {"steps": 2}}), handle)
    told = handle.folder.read_table("tables/about.parquet").to_pylist()[0]
    assert told["value"].startswith("eigenvectors of the Hessian to ")
    scaled = make_run("scaled")
    plane = {"kind": "eigenvectors", "images": 20, "normalisation": "filter"}
    run(params(plane=plane, grid={"x": {"steps": 2}}), scaled)
    axis = safetensors.torch.load(scaled.folder.read("files/directions.safetensors"))
    weights = decode(scaled.folder.read("models/digits-digits-net-landscape.safetensors"))["weights"]
    matrices = [name for name, tensor in weights.items() if tensor.ndim > 1]
    for name in matrices:  # each filter is as long as that of the weights
        lengths = [tensor.flatten(1).norm(dim=1) for tensor in (axis[f"x/{name}"], weights[name])]
        torch.testing.assert_close(*lengths)


def test_points_that_failed_show_no_images(make_run):
    class OneFails(Run):
        def map(self, fn, cells, shared=None, name=None):
            results = super().map(fn, cells, shared, name)
            return [None, *results[1:]] if name == "surface" else results

    handle = make_run(kind=OneFails)
    run(params(images=50), handle)
    assert handle.metrics["images_per_point"] == 50
    assert np.isnan(read_array(handle, "loss")[0, 0])


def test_lines_are_repeats_if_they_differ_in_the_draw_alone(make_run):
    handle, asked = make_run(), params(grid={"x": {"steps": 3}}, images=20)
    run(asked, handle)
    told = {"variant": None, "seed": 0, "overrides": {}, "best": False, "params": asked, "metrics": {}}
    labels = ("batch=16 draw=0 seed=1", "batch=16 draw=1 seed=2", "batch=512 draw=0 seed=1", "seed=3")
    trials = [Trial(handle.folder, id=label, label=label, status="finished", **told) for label in labels]
    assert [results.curve_of(trial).label for trial in trials] == ["batch=16", "batch=16", "batch=512", "all"]


def test_a_set_that_does_not_fit_into_memory(make_run, monkeypatch):
    """Images are drawn of it, before anything is trained; the score of the centre is over all of it, part by part."""
    drawn = params(images=50, grid={"x": {"steps": 2}})
    whole, parted = make_run("whole"), make_run("parted")
    run(drawn, whole)
    monkeypatch.setattr("jobs.common.mean_loss.samples.MOST_BYTES", 4 * 64 * 60)
    monkeypatch.setattr("jobs.common.mean_loss.plain.PART", 60)
    run(drawn, parted)
    for name in ("centre_loss", "test_accuracy"):
        assert parted.metrics[name] == pytest.approx(whole.metrics[name], rel=1e-6)
    monkeypatch.setattr("jobs.loss_landscape.networks.train", lambda *given: pytest.fail("a network was trained"))
    with pytest.raises(InputError, match="200 images of digits must take at most 0 GB; they take 0"):
        run(params(), make_run("all"))


SPECTRA = {"images": 30, "trace_probes": 4, "density_probes": 2, "density_steps": 4, "sharpness": {"steps": 2}}


def test_surfaces_are_shown_side_by_side(make_run):
    trials = []
    for name, changes in (
        ("a", {"spectra": SPECTRA}),
        ("b", {"plane": {"kind": "random", "draw": 1}}),
        ("line", {"grid": {"x": {"steps": 3}}}),
    ):
        handle, asked = make_run(name), params(**changes)
        run(asked, handle)
        handle.flush()
        trials.append(
            Trial(
                handle.folder,
                id=name,
                label=name,
                variant=name,
                seed=0,
                overrides={},
                params=asked,
                status="finished",
                metrics=handle.metrics,
                best=False,
            )
        )
    whole = make_run("whole")
    summarize(trials, whole)
    assert not np.array_equal(trials[0].array("loss"), trials[1].array("loss")), "another draw, another surface"
    assert trials[0].metrics["trace"] == trials[0].table("spectra")[0]["trace"]
    for name in ("contours", "surfaces", "curves", "spectra"):
        assert whole.folder.exists(f"figures/{name}.png")
    assert len(whole.folder.read_table("tables/results.parquet")) == 3


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"data": {"name": "digit"}}, "unknown data set 'digit'.*did you mean 'digits'"),
        ({"network": {**TRAINED, "classifier": {"name": "resnet21"}}}, "unknown classifier 'resnet21'"),
        ({"evaluation": {"loss": "mae"}}, "unknown loss 'mae'"),
        ({"grid": {"x": {"steps": 1}}}, "params.grid.x.steps"),
        ({"grid": {"x": {"low": 1.0, "high": -1.0}}}, "params.grid.x.low must be below high, which is -1; it is 1"),
        (
            {"plane": {"kind": "trajectory"}},
            "keep_every must be given for a plane of kind trajectory; it is empty",
        ),
        (
            {
                "network": {**TRAINED, "training": {**TRAINED["training"], "keep_every": 2}},
                "plane": {"kind": "trajectory"},
            },
            "keep_every must be below 2, the number of epochs, so that the path spans a plane; it is 2",
        ),
        (
            {
                "network": {**TRAINED, "training": {**TRAINED["training"], "keep_every": 1}},
                "plane": {"kind": "trajectory"},
            },
            r"low and high of grid.y must be left out for a plane of kind trajectory, .*; it is \[-0.5, 1\]",
        ),
        ({"plane": {"kind": "models", "x": TRAINED}}, "a plane through three networks needs both"),
        ({"plane": {"kind": "random", "normalisation": "filters"}}, "params.plane.*normalisation"),
        (
            {"export": ["vtp"], "grid": {"x": {"steps": 3}}},
            "params.export must be without vtp, .*; it is ",
        ),
        ({"images": 1}, "params.images"),
    ],
    ids=lambda value: json.dumps(value)[:40] if isinstance(value, dict) else "",
)
def test_parameters_that_cannot_work_are_refused_in_a_sentence(changes, sentence):
    with pytest.raises(SpecError, match=sentence):
        params(**changes)


def test_networks_that_do_not_fit_the_images_are_refused(make_run):
    wide = {**TRAINED, "classifier": {"name": "digits_net", "options": {"classes": 3}}}
    with pytest.raises(InputError, match=r"logits of shape \(1, 10\); they are \(1, 3\)"):
        run(params(network=wide), make_run("b"))


OWN = """
import torch
from jobs.common.data.images import DataParams
from jobs.common.data.images.base import Pixels

def backwards(split, source):
    images = DataParams(train_limit=60).load("train")
    pixels = (16 * images.images(torch.arange(60))).to(torch.uint8)
    return Pixels("backwards", "9876543210", pixels, 9 - images.labels, white=16)
"""


@pytest.mark.usefixtures("own_package")
def test_labels_follow_the_classes_of_stored_networks(make_run, tmp_path):
    store = open_store(str(tmp_path / "store"))
    for name, classes in (("net", "0123456789"), ("other", "9876543210")):
        arguments = {"classes": 10, "channels": 1}
        card = draft("jobs.common.models.classifiers:digits_net", arguments, settings={"classes": list(classes)})
        torch.manual_seed(0)
        models.publish(store, name, classifier("digits_net", **arguments).state_dict(), card)
    stored, line = {"kind": "model", "name": "net"}, {"x": {"low": 0.0, "high": 1.0, "steps": 2}}
    losses = []
    for name, data in (("a", {"name": "digits", "train_limit": 60}), ("b", {"name": "mypackage.module:backwards"})):
        handle = make_run(name)
        run(params(network=stored, data=data, grid=line), handle)
        losses.append(handle.metrics["centre_loss"])
    assert losses[0] == pytest.approx(losses[1])
    other = {"kind": "models", "x": {"kind": "model", "name": "other"}}
    with pytest.raises(InputError, match="classes of network 'other/1' must be those of 'net/1', 0, .*; they are 9, 8"):
        run(params(network=stored, plane=other, grid=line), make_run("c"))


@pytest.mark.parametrize("space", ["weights", "states"])
def test_directions_go_to_the_released_code_and_come_back(space, make_run, tmp_path):
    network = {"kind": "model", "name": f"{OUTSIDE}:normalised"}
    plane, line = {"kind": "random", "space": space, "ignore": "none"}, {"x": {"steps": 3}}
    first, again = make_run("first"), make_run("again")
    run(params(network=network, plane=plane, grid=line, images=20, export=["h5"]), first)
    file = tmp_path / "theirs.h5"
    file.write_bytes(first.folder.read("files/directions.h5"))
    plane = {"kind": "file", "path": str(file)}
    run(params(network=network, plane=plane, grid=line, images=20), again)
    assert np.array_equal(read_array(again, "loss"), read_array(first, "loss"), equal_nan=True)
    count = {"weights": 4, "states": 7}[space]
    with pytest.raises(InputError, match=f"xdirection has {count} tensors, and the network 2"):
        run(params(network={"kind": "model", "name": f"{OUTSIDE}:plain"}, plane=plane, grid=line), make_run("other"))


def test_a_surface_of_the_released_code_is_drawn_and_nothing_is_computed(make_run, tmp_path):
    x, y = np.linspace(-1, 1, 5), np.linspace(0, 1, 4)
    loss = np.exp(y[:, None] + x)
    file = tmp_path / "theirs.h5"
    file.write_bytes(write_surface(SurfaceFile(x, y, {"train_loss": loss})))
    handle = make_run("drawn")
    vtp = {"height": "log_loss", "highest": 5.0, "steps": 9}
    run(params(surface_file=str(file), export=["vtp", "h5"], vtp=vtp), handle)
    assert np.array_equal(read_array(handle, "loss"), loss) and not handle.folder.exists("cells")
    assert handle.metrics["highest"] == loss.max() and handle.metrics["points"] == 20
    assert b'Name="log_loss"' in handle.folder.read("files/surface_log_loss.vtp")
    assert b'NumberOfPoints="81"' in handle.folder.read("files/surface_log_loss.vtp")
    assert handle.folder.exists("figures/surface.png") and not handle.written.warnings
    with pytest.raises(InputError, match="must hold test_loss; it holds train_loss"):
        run(params(surface_file=str(file), split="test"), make_run("split"))


def test_a_surface_with_holes_is_not_resampled(make_run):
    handle = make_run("holes")
    loss = np.where(np.eye(4) > 0, np.nan, 1.0)
    export_vtp(loss, np.arange(4.0), np.arange(4.0), VtpParams(steps=9), handle)
    (warning,) = handle.written.warnings
    assert warning.startswith("the file for ParaView has the computed points alone: splines need at least 4x4 points")
    assert b'NumberOfPoints="12"' in handle.folder.read("files/surface_loss.vtp")


OUTSIDE = "tests.jobs.common.models.outside"


def test_networks_from_outside_are_refused_before_anything_is_trained(make_run):
    handle = make_run()
    other = {"kind": "model", "name": f"{OUTSIDE}:Tuple"}
    grid = {"x": {"low": 0.0, "high": 1.0, "steps": 3}}
    with pytest.raises(InputError, match="they are tuple"):
        run(params(plane={"kind": "models", "x": other}, grid=grid), handle)
    assert not handle.rows
    with pytest.raises(InputError, match="must have weights, along which its loss is drawn; it has none"):
        run(params(network={"kind": "model", "name": f"{OUTSIDE}:weightless"}), make_run("other"))


def test_a_published_network_has_a_landscape(make_run, monkeypatch):
    """torchvision's weights are not there: another network takes their place."""
    published = classifier("digits_net", classes=10, channels=1)
    monkeypatch.setattr(network_params, "published_inception_v3", lambda weights: published)
    handle = make_run()
    run(params(network={"kind": "published"}, grid={"x": {"steps": 3}}, images=20), handle)
    assert handle.metrics["points"] == 3 and np.isfinite(handle.metrics["centre_loss"])


def test_a_surface_around_a_wrapped_network(make_run):
    surfaces = []
    for name in ("plain", "parallel"):
        handle = make_run(name)
        run(params(network={"kind": "model", "name": f"{OUTSIDE}:{name}"}, images=20), handle)
        surfaces.append(read_array(handle, "loss"))
    assert np.isfinite(surfaces[0]).all() and np.array_equal(*surfaces)


def test_a_centre_that_cannot_be_computed_is_a_sentence_before_the_surface(make_run):
    handle = make_run()
    with pytest.raises(RunFailedError, match="1 of 1 cells of 'centre' failed, without which there is no loss"):
        run(params(network={"kind": "model", "name": f"{OUTSIDE}:OneAtATime"}), handle)
    assert not handle.folder.exists("tables/loss.npy")
    # one that is not finite is told
    handle = make_run("infinite")
    run(params(network={"kind": "model", "name": f"{OUTSIDE}:Infinite"}, images=20), handle)
    (warning,) = handle.written.warnings
    assert "the loss at the centre is nan: the network answers some images with NaN" in warning


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"images": 201}, "images must be at most 200, the number of images of digits; it is 201"),
        ({"data": {**DATA, "test_limit": 10_000}}, "data.test_limit must be at most"),
        ({"plane": {"kind": "models", "x": {"kind": "model", "name": "nowhere"}}}, "no model 'nowhere'"),
        (
            {"plane": {"kind": "models", "x": {**TRAINED, "classifier": {"name": "cifar_resnet"}}}},
            "is of another architecture: it lacks",
        ),
    ],
    ids=["images", "test", "stored", "architecture"],
)
def test_what_can_be_refused_is_refused_before_training(make_run, monkeypatch, changes, sentence):
    monkeypatch.setattr("jobs.loss_landscape.networks.train", lambda *given: pytest.fail("a network was trained"))
    grid = {"x": {"low": 0.0, "steps": 3}}
    with pytest.raises(AssayError, match=sentence):
        run(params(grid=grid, **changes), make_run())


def read_array(handle: Run, name: str) -> np.ndarray:
    path = Path(handle.folder.path) / "tables" / f"{name}.npy"
    return np.load(path)
