"""Estimates against the numbers that are known of the paper's surfaces, and `assay check`, which tells them."""

import json

import pytest
import torch

from jobs.common.curvature.eigenvalues import ends, top_eigenvectors
from jobs.common.curvature.hessian import Hessian
from jobs.common.curvature.spectra_params import RESTART
from jobs.common.estimation import layer_work
from jobs.common.models.classifiers import classifier
from jobs.loss_landscape.estimation import EXTREMES, H100, PRODUCT, TOP, estimate, gpu_seconds
from jobs.loss_landscape.params import Params
from service.cli import main
from service.planning.validation import validate


@pytest.mark.parametrize(("name", "macs"), [("resnet20", 40.8e6), ("resnet56", 125.8e6), ("vgg9", 191.6e6)])
def test_the_papers_networks_have_the_multiply_adds_that_are_known_of_them(name, macs):
    work = layer_work(classifier(name, classes=10, channels=3), torch.rand(1, 3, 32, 32))
    assert sum(layer.macs for layer in work) == pytest.approx(macs, rel=0.01)


def test_a_gpu_is_held_up_by_memory_in_thin_layers_and_by_arithmetic_in_thick_ones():
    """A 3x3 convolution of C channels on 32x32 has 9 C^2 32^2 multiply-adds and moves 2 C 32^2 numbers."""
    for channels, bound in ((16, 2 * 2 * 16 * 32**2 / 3.35e12), (256, 2 * 9 * 256**2 * 32**2 / 989e12)):
        layer = torch.nn.Conv2d(channels, channels, 3, padding=1)
        work = layer_work(layer, torch.rand(1, channels, 32, 32))
        assert gpu_seconds(work, 1000, H100) == pytest.approx(1000 * bound)


def paper(**changes: object) -> Params:
    return validate(
        Params,
        {
            "data": {"name": "cifar10", "root": "/nowhere"},
            "network": {"kind": "train", "classifier": {"name": "resnet20"}, "training": {"epochs": 2}},
            "grid": {"x": {"steps": 51}, "y": {"steps": 51}},
            "evaluation": {"batch": 8},
            **changes,
        },
        "params",
    )


def test_data_that_are_not_here_are_counted_where_they_are_known():
    cost = estimate(paper())
    points, train, test = 2601, 50_000, 10_000
    assert cost.pieces == cost.details["points"] == points and cost.details["images"] == points * train
    # the surface, the scores of both splits and of the centre, and two epochs of training at three passes each
    images = points * train + train + test + train + 3 * 2 * train
    assert cost.multiply_adds == pytest.approx(40.8e6 * images, rel=0.01)
    assert cost.core_seconds > 3600
    elsewhere = estimate(paper(data={"name": "image_folder", "root": "/nowhere"}))
    assert elsewhere.details["images"].startswith("unknown: ") and elsewhere.core_seconds is None


def test_a_network_of_the_store_is_not_opened():
    cost = estimate(paper(network={"kind": "model", "name": "net"}, images=100, curvature={}))
    assert cost.multiply_adds is None and cost.details["images"] == 2601 * 100
    assert cost.details["images in products of the Hessian"] == 13**2 * EXTREMES * 100
    drawn = estimate(paper(surface_file="theirs.h5"))
    assert drawn.pieces == 0 and drawn.core_seconds is None


def test_curvature_eigenvectors_and_the_path_are_counted():
    network = {"kind": "train", "classifier": {"name": "fast_mnist"}, "training": {"epochs": 2, "keep_every": 1}}
    small = {"data": {"name": "mnist", "root": "/nowhere"}, "network": network, "images": 100}
    forward = sum(layer.macs for layer in layer_work(classifier("fast_mnist"), torch.rand(1, 1, 28, 28)))
    plain = estimate(paper(**small)).multiply_adds
    for changes, passes in (
        ({"curvature": {"steps": 5, "images": 30}}, PRODUCT * 5**2 * EXTREMES * 30),
        ({"plane": {"kind": "eigenvectors", "images": 50}}, PRODUCT * TOP * 50),
        ({"plane": {"kind": "trajectory"}}, 2 * 3 * 100),
    ):
        assert estimate(paper(**small, **changes)).multiply_adds - plain == pytest.approx(forward * passes, rel=1e-6)


def test_spectra_are_counted():
    """Of each layer as often as of the whole, but the trace, the principal curvature and sharpness."""
    network = {"kind": "train", "classifier": {"name": "fast_mnist"}, "training": {"epochs": 2}}
    small = {"data": {"name": "mnist", "root": "/nowhere"}, "network": network, "images": 100}
    spectra = {"images": 30, "trace_probes": 7, "density_probes": 3, "density_steps": 11, "sharpness": None}
    counts = []
    for each in (None, {**spectra, "layers": False}, spectra):
        counts.append(estimate(paper(**small, spectra=each)).details.get("images in products of the Hessian", 0))
    lanczos = 2 * RESTART + 33
    assert counts == [0, 30 * (lanczos + RESTART + 7), 30 * (lanczos + RESTART + 7 + 4 * lanczos)]
    stored = estimate(paper(network={"kind": "model", "name": "net"}, images=100, spectra={}))
    assert stored.details["spectra of single layers"].startswith("not counted")


def test_products_of_the_hessian_are_about_as_many_as_are_counted_on():
    torch.manual_seed(0)
    network = classifier("digits_net", classes=10, channels=1)
    hessian = Hessian(network, torch.rand(20, 1, 8, 8), torch.arange(20) % 10)
    assert EXTREMES <= ends(hessian, 1, 1, seed=0).products < 1.5 * EXTREMES
    calls = []
    top_eigenvectors(lambda vector: calls.append(1) or hessian(vector), hessian.size, 2, seed=0)
    assert TOP <= len(calls) < 1.5 * TOP


def test_check_gives_the_cost_of_each_trial(capsys):
    spec, changes = "configs/loss_landscape/small.yaml", ["params.grid.x.steps=7", "params.images=20"]
    assert main(["check", spec, *changes, "--json"]) == 0
    costs = json.loads(capsys.readouterr().out)["estimates"]
    assert ["shortcuts_38"] in [each["trials"] for each in costs] and costs[0]["pieces"] == 7 * 15
