"""Networks prepared for many images predict the same."""

from typing import Any

import pytest
import torch
from torch import nn

from jobs.common.data.masks.base import Pairs
from jobs.common.models import inference
from jobs.common.models.classifiers.sunet import PLANS
from jobs.common.models.fused_convolution import FusedConvolution, can_fuse
from jobs.common.models.inference import for_inference
from jobs.stacked_unets import evaluation
from jobs.stacked_unets.evaluation import evaluate
from jobs.stacked_unets.networks import ARCHITECTURES, segmenter
from jobs.stacked_unets.padding import Padded, any_size
from jobs.stacked_unets.prediction import PredictionParams, predict, prepared
from tests.jobs.stacked_unets import tiny

SLOW = ("sunet128", "sunet7_128", *(name for name in ARCHITECTURES if "resnet" in name))  # layers as in others


def drawn(name: str, **arguments: Any) -> nn.Module:
    """With statistics that are not 0 and 1."""
    torch.manual_seed(0)
    network = segmenter(name, classes=3, **arguments)
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.normal_(std=0.1), norm.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
            nn.init.normal_(norm.bias, std=0.1)
    return network.eval()


@pytest.mark.skipif(not can_fuse(), reason="this torch has no fused convolutions")
@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name not in SLOW])
def test_every_network_at_other_sizes_than_it_was_prepared_with(name: str) -> None:
    network = drawn(name)
    ready = for_inference(network, torch.rand(1, 3, 64, 64))
    assert any(isinstance(each, FusedConvolution) for each in ready.modules())
    takes_all = name != "segmentation_models"
    for size in ((1, 33, 50), (2, 96, 41)) if takes_all else ((1, 32, 96),):
        images = torch.rand(size[0], 3, *size[1:])
        with torch.no_grad():
            logits, expected = ready(images), network(images)
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize(
    "arguments", [{"output_stride": 8, "head": "degridding"}, {"output_stride": 32, "pooling": "down"}]
)
def test_stacked_unets_of_all_kinds(arguments: dict[str, Any]) -> None:
    network, images = drawn("sunet_tiny", **arguments), torch.rand(1, 3, 96, 70)
    with torch.no_grad():
        torch.testing.assert_close(for_inference(network, images)(images), network(images), rtol=1e-3, atol=1e-4)


@pytest.mark.skipif(not can_fuse(), reason="this torch has no fused convolutions")
def test_norms_stay_passes_of_their_own_only_where_no_convolution_ends_at_them() -> None:
    """At the head of each u-net and of the network, after a join, and where features are kept for one."""
    images = torch.rand(1, 3, 64, 64)
    ready = inference.shortened(segmenter("sunet_tiny", classes=3).eval(), images, gradients=False)
    assert ready is not None
    layers = [each for each in ready.modules() if isinstance(each, FusedConvolution)]
    alone = sum(each.geometry[3] > 1 for each in layers)  # a convolution of each channel
    modules = sum(PLANS["sunet_tiny"].modules)
    assert alone == modules + 2 * (modules - 1) + 1  # u-nets of two levels but the last, which joins nothing
    assert not any(isinstance(each, nn.BatchNorm2d) for each in ready.modules())


@pytest.mark.parametrize("name", ["sunet_tiny", "ladder"])
def test_a_set_is_evaluated_by_a_prepared_network(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = any_size(tiny.Ladder(3, 3) if name == "ladder" else drawn(name), 3)
    assert isinstance(network, Padded) == (name == "ladder")
    pairs: Pairs = tiny.fields("test", None)  # type: ignore[arg-type]
    expected = evaluate(network, pairs, PredictionParams())
    monkeypatch.setattr(evaluation, "MANY", 2)
    monkeypatch.setattr(inference, "LARGE", 1)
    ready: list[nn.Module] = []

    def kept(network: nn.Module) -> nn.Module:
        ready.append(prepared(network))
        return ready[-1]

    monkeypatch.setattr(evaluation, "prepared", kept)
    matrix = evaluate(network, pairs, PredictionParams())
    assert len(ready) == 1 and any(isinstance(each, FusedConvolution) for each in ready[0].modules()) == can_fuse()
    assert int((matrix - expected).abs().sum()) <= 2e-3 * int(expected.sum())  # ties
    image = torch.rand(3, 70, 45)
    for params in (PredictionParams(), PredictionParams(scales=(0.5, 1.0), flip=True)):
        one, other = predict(network, image, params), predict(ready[0], image, params)
        assert float((one.labels != other.labels).float().mean()) <= 1e-3
        torch.testing.assert_close(one.confidence, other.confidence, rtol=0, atol=1e-4)
