"""Folded detectors: the same answers and gradients, the original as it was."""

import pytest
import torch
from torch import nn

from jobs.common.detection.base import Detector, weights_hash
from jobs.common.detection.detectors.one_anchor import one_anchor
from jobs.common.detection.detectors.two_anchors import two_anchors
from jobs.common.detection.detectors.yolov3_tiny import YoloV3Tiny
from jobs.common.detection.folding import folded
from jobs.common.models.fused_convolution import FusedConvolution, can_fuse


def with_statistics(detector: Detector) -> Detector:
    """Batch norm of which neither statistics nor weights are those of the start."""
    for module in detector.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values, low, high in (
                (module.running_mean, -0.2, 0.2),
                (module.running_var, 0.5, 1.5),
                (module.weight, 0.5, 1.5),
                (module.bias, -0.2, 0.2),
            ):
                assert values is not None
                nn.init.uniform_(values, low, high)
    return detector.eval()


@pytest.mark.parametrize("build", [one_anchor, two_anchors, YoloV3Tiny])
def test_a_folded_detector_answers_alike(build: type[Detector]) -> None:
    torch.manual_seed(0)
    detector = with_statistics(build())
    before = weights_hash(detector)
    fast = folded(detector)
    images = [torch.rand(1, 3, 64, 96).requires_grad_()]
    images.append(images[0].detach().clone().requires_grad_())
    answers = [each.priors(image) for each, image in zip((detector, fast), images, strict=True)]
    assert torch.allclose(answers[0].corners, answers[1].corners, atol=1e-2, rtol=1e-3)
    logits = [each.logits(0) for each in answers]
    assert torch.allclose(*logits, atol=1e-4, rtol=1e-3)
    for each in logits:
        each.square().sum().backward()  # type: ignore[no-untyped-call]
    one, other = (image.grad for image in images)
    assert one is not None and other is not None and torch.allclose(one, other, atol=1e-3 * float(one.abs().max()))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fast.modules())
    fused = sum(isinstance(module, FusedConvolution) for module in fast.modules())
    assert fused == {one_anchor: 5, two_anchors: 1, YoloV3Tiny: 11}[build] * can_fuse()
    assert weights_hash(detector) == before and not any(each.requires_grad for each in fast.parameters())
    assert fast.name == detector.name and fast.classes == detector.classes


def test_what_does_more_than_its_weights_say_is_left() -> None:
    class Reversed(nn.Sequential):
        def forward(self, features: torch.Tensor) -> torch.Tensor:
            for module in reversed(self):
                features = module(features)
            return features

    detector = with_statistics(one_anchor())
    body = detector.network[0]  # type: ignore[index]
    assert isinstance(body, nn.Sequential)
    body[1].register_forward_hook(lambda module, inputs, output: output + 1)
    detector.backwards = Reversed(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
    kinds = [type(module) for module in folded(detector).modules()]
    assert kinds.count(nn.BatchNorm2d) == 2
