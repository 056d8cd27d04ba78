"""Proximal steps against least squares that are written out."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from jobs.common.data.augmentation import AugmentationParams
from jobs.common.training.optimizers import OptimizerParams
from jobs.common.training.proximal import ProximalSteps
from jobs.common.training.supervised import SupervisedParams, Training, train
from service.errors import InputError
from tests.jobs.common.training.test_supervised import images

TAU = 0.5


def nearest(layer: nn.Module, inputs: Tensor, outputs: Tensor) -> list[Tensor]:
    """The argmin_Z 1/2 |A Z - outputs|^2 + 1 / (2 tau) |Z - X|^2, by least squares on the layer's Jacobian A."""
    names = list(dict(layer.named_parameters()))
    weights = [each.detach() for each in layer.parameters()]

    def answer(*values: Tensor) -> Tensor:
        result: Tensor = torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (inputs,))
        return result.flatten()

    jacobian = torch.cat([each.flatten(1) for each in torch.autograd.functional.jacobian(answer, tuple(weights))], 1)
    flat = torch.cat([each.flatten() for each in weights])
    matrix = torch.cat([jacobian, torch.eye(len(flat)).double() / TAU**0.5])
    target = torch.cat([outputs.flatten(), flat / TAU**0.5])
    solution = torch.linalg.lstsq(matrix, target[:, None]).solution[:, 0]
    parts = solution.split([each.numel() for each in weights])
    return [part.view_as(each) for part, each in zip(parts, weights, strict=True)]


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(5, 3), (7, 5)),
        (nn.Linear(5, 3, bias=False), (7, 4, 5)),
        (nn.Conv2d(2, 3, 3, stride=2, padding=1), (4, 2, 6, 5)),
        (nn.Conv2d(2, 2, (2, 3), dilation=2, bias=False), (3, 2, 6, 7)),
    ],
    ids=str,
)
def test_a_step_goes_to_the_minimum(layer: nn.Module, shape: tuple[int, ...]) -> None:
    """Two passes count as one batch; what is computed in evaluation mode or without gradients does not."""
    layer = layer.double().eval()
    steps = ProximalSteps(layer, TAU)
    inputs, before = torch.randn(shape, dtype=torch.float64), [each.detach().clone() for each in layer.parameters()]
    outputs = layer(inputs).detach()
    slopes = torch.randn_like(outputs)
    expected = nearest(layer, inputs, outputs - slopes)
    layer.train()
    with torch.no_grad():
        layer(inputs)
    for part, slope in zip(inputs.split(2), slopes.split(2), strict=True):
        layer(part).backward(slope)
    steps.replace_gradients()
    for weight, was, goal in zip(layer.parameters(), before, expected, strict=True):
        assert weight.grad is not None
        torch.testing.assert_close(was - weight.grad, goal)


def test_training_with_proximal_steps(make_run: Any) -> None:
    """It learns, by plain descent, to other weights than plain gradients do, and leaves the network without hooks."""

    def trained(proximal: float | None) -> Training:
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(8, 2))
        params = SupervisedParams(
            epochs=30,
            batch=20,
            optimizer=OptimizerParams(kind="sgd", learning_rate=0.3, weight_decay=0.0),
            augmentation=AugmentationParams(),
            proximal=proximal,
        )
        training = Training("", network, images(), params)
        run = make_run(f"proximal-{proximal is not None}")
        train([training], run)
        assert run.metrics["train_accuracy"] == 1
        return training

    plain, proximal = trained(None).network, trained(0.5).network
    assert not torch.equal(plain[0].weight, proximal[0].weight)
    assert not any(each._forward_hooks for each in proximal.modules())


def test_convolutions_that_have_no_such_step() -> None:
    with pytest.raises(InputError, match="one group, .*; the network has groups=2"):
        ProximalSteps(nn.Sequential(nn.Conv2d(2, 2, 3, groups=2)), 1.0)
