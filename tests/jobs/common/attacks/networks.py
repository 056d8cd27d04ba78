"""Small models to attack."""

import torch
from torch import Tensor, nn

from jobs.common.attacks.ball import Ball


def small_net(channels: int = 1, classes: int = 10, seed: int = 0, gain: float = 1.0) -> nn.Sequential:
    """An untrained convolutional network for images of any size, whose classes are equally common.

    gain: factor of its logits.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential(
            nn.Conv2d(channels, 8, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, 2, 1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(64, classes),
        )
    with torch.no_grad():
        net[-1].bias -= net(random_images(100, channels, 12, 12)).mean(0)  # no class is always the first
        net[-1].weight *= gain
        net[-1].bias *= gain
    return net.eval()


def random_images(*shape: int, seed: int = 1) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def predictions(model: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        return model(images).argmax(1)


def in_ball(points: Tensor, images: Tensor, ball: Ball) -> bool:
    """Whether all points are in the ball, but for what it takes to store pixels in [0, 1] in float32.

    Half a unit in the last place of each pixel adds up: pixels^(1/p) of them in the norm p.
    """
    if ball.norm == "L0":
        return bool((ball.distances(points, images) <= ball.epsilon).all())
    power = {"Linf": 0.0, "L2": 0.5, "L1": 1.0}[ball.norm]
    rounding = 2**-24 * images[0].numel() ** power + 2**-22 * ball.epsilon
    return bool((ball.distances(points, images) <= ball.epsilon + rounding).all())
