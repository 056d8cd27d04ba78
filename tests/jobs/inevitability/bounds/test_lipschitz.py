"""Lipschitz constants: the whole matrix of a layer, linear networks, and estimates that are never above the limit."""

import pytest
import torch
from torch import Tensor, nn

from jobs.inevitability.bounds.lipschitz import convolution_norm, estimate, modulus_estimate, upper_limit
from service.errors import FieldError, InputError


def seeded(layer: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    for parameter in layer.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    return layer.eval()


def matrix_norm(layer: nn.Module, shape: tuple[int, ...]) -> float:
    """Of a layer without its bias, as a whole matrix, by singular values."""
    layer = layer.double()
    zero = torch.zeros(1, *shape, dtype=torch.float64)
    columns = torch.eye(zero.numel(), dtype=torch.float64).reshape(-1, *shape)
    with torch.no_grad():
        matrix = (layer(columns) - layer(zero)).flatten(1)
    return float(torch.linalg.matrix_norm(matrix, ord=2))


LINEAR = [
    (nn.Linear(7, 5), (7,), 1e-9),
    (nn.Conv2d(2, 3, 3, padding=1), (2, 6, 6), 0.25),
    (nn.Conv2d(4, 2, 3, stride=2, groups=2), (4, 7, 6), 0.3),
    (nn.ConvTranspose2d(3, 2, 4, stride=2, padding=1), (3, 4, 4), 0.3),
    (nn.ConvTranspose2d(4, 2, 3, groups=2), (4, 4, 4), 0.25),
    (nn.Upsample(scale_factor=2), (2, 3, 3), 1e-9),
    (nn.Upsample(scale_factor=(2, 3)), (2, 3, 3), 1e-9),
    (nn.Upsample(scale_factor=2), (1, 2, 2, 2), 1e-9),
    (nn.AvgPool2d(2), (2, 4, 4), 1e-9),
    (nn.Flatten(), (2, 3, 3), 1e-9),
]


@pytest.mark.parametrize("layer, shape, slack", LINEAR, ids=lambda value: type(value).__name__)
def test_limit_of_a_layer_against_its_matrix(layer: nn.Module, shape: tuple[int, ...], slack: float) -> None:
    """Never below, and near where zeros around an image matter little."""
    exact, limit = matrix_norm(seeded(layer), shape), upper_limit(layer.float(), shape)
    assert exact * (1 - 1e-6) <= limit <= exact * (1 + slack) + 1e-6


def test_batch_norm() -> None:
    norm = nn.BatchNorm1d(3).eval()
    norm.running_var.copy_(torch.tensor([0.25, 4.0, 1.0]))
    norm.weight.data.copy_(torch.tensor([1.0, -8.0, 2.0]))
    assert upper_limit(norm, (3,)) == pytest.approx(4, rel=1e-4) == pytest.approx(matrix_norm(norm, (3,)), rel=1e-4)


def test_a_convolution_of_one_pixel_is_its_matrix() -> None:
    weight = torch.randn(5, 3, 1, 1, generator=torch.Generator().manual_seed(1))
    assert convolution_norm(weight, (8, 8)) == pytest.approx(
        float(torch.linalg.matrix_norm(weight[..., 0, 0], 2)), rel=1e-6
    )


def generator_network() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(4, 8 * 9),
        nn.Unflatten(1, (8, 3, 3)),
        nn.LeakyReLU(0.2),
        nn.Sequential(nn.ConvTranspose2d(8, 4, 4, stride=2, padding=1), nn.BatchNorm2d(4), nn.ReLU()),
        nn.Conv2d(4, 1, 3, padding=1),
        nn.Sigmoid(),
    )


def test_estimates_are_below_the_limit() -> None:
    network = seeded(generator_network())
    latents = torch.randn(8, 4, generator=torch.Generator().manual_seed(2))
    limit, slope = upper_limit(network, (4,)), estimate(network, latents)
    assert 0 < slope <= limit
    exact = max(
        float(torch.linalg.matrix_norm(torch.autograd.functional.jacobian(network, z).reshape(-1, 4), 2))
        for z in latents.split(1)
    )
    assert slope == pytest.approx(exact, rel=1e-3) and slope <= exact * (1 + 1e-5)
    for radius in (0.01, 1.0):
        assert 0 < modulus_estimate(network, latents, radius, torch.Generator().manual_seed(0)) <= limit * radius


def test_estimate_of_a_linear_generator_is_its_norm() -> None:
    layer = seeded(nn.Linear(6, 9)).double()
    latents = torch.zeros(1, 6, dtype=torch.float64)
    assert estimate(layer, latents, iterations=300) == pytest.approx(matrix_norm(layer, (6,)), rel=1e-9)
    assert estimate(nn.Threshold(1e9, 0.0), latents) == 0  # flat everywhere


def test_a_layer_that_is_used_twice_counts_twice() -> None:
    layer = seeded(nn.Linear(4, 4, bias=False))
    network = nn.Sequential(layer, nn.Sequential(nn.ReLU(), layer), layer).eval()
    assert upper_limit(network, (4,)) == pytest.approx(upper_limit(layer, (4,)) ** 3, rel=1e-9)


class Residual(nn.Sequential):
    def forward(self, values: Tensor) -> Tensor:
        output: Tensor = values + super().forward(values)
        return output


class Scaled(nn.Linear):
    def forward(self, values: Tensor) -> Tensor:
        return 9 * super().forward(values)


def hooked(register: str) -> nn.Module:
    """A layer that does more than its type says."""
    layer = nn.Linear(4, 4)
    getattr(layer, register)(lambda _, values, *outputs: 9 * (outputs or values)[0])
    return layer


def replaced() -> nn.Module:
    layer = nn.ReLU()
    layer.forward = lambda values: 9 * values  # type: ignore[method-assign]
    return layer


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (Residual(nn.Linear(4, 4)), (4,)),
        (Scaled(4, 4), (4,)),
        (hooked("register_forward_hook"), (4,)),
        (hooked("register_forward_pre_hook"), (4,)),
        (replaced(), (4,)),
        (nn.Softplus(threshold=-1.0), (4,)),  # it has a step
        (nn.AvgPool2d(2, divisor_override=1), (1, 4, 4)),
        (nn.AvgPool2d(2, ceil_mode=True), (1, 3, 3)),  # the last window is one pixel
        (nn.MaxPool2d(2, dilation=2), (1, 5, 5)),  # a pixel is in several windows
        (nn.MaxPool2d(3, stride=1), (1, 4, 4)),
    ],
)
def test_no_limit_is_claimed_for_a_layer_that_does_something_else(layer: nn.Module, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=f"of layer 1, a {type(layer).__name__}, no Lipschitz constant is known here"):
        upper_limit(nn.Sequential(nn.Identity(), layer).eval(), shape)


def test_bad_input() -> None:
    with pytest.raises(InputError, match="of layer 1.0, a LSTM, no Lipschitz constant is known here"):
        upper_limit(nn.Sequential(nn.Identity(), nn.Sequential(nn.LSTM(2, 2))).eval(), (2,))
    with pytest.raises(InputError, match="the generator must be in evaluation mode"):
        upper_limit(generator_network(), (4,))
    part = generator_network().eval()
    part[3].train()
    with pytest.raises(InputError, match="a part of it is in training mode"):
        upper_limit(part, (4,))
    with pytest.raises(FieldError, match="latents must be at least 1 vector; it is 0"):
        estimate(nn.Identity(), torch.zeros(0, 2))
    with pytest.raises(InputError, match="the generator must give finite outputs"):
        estimate(torch.log, -torch.ones(1, 2))
    with pytest.raises(FieldError, match="radius must be above 0 and finite; it is 0"):
        modulus_estimate(nn.Identity(), torch.zeros(1, 2), 0.0, torch.Generator())
