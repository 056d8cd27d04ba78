"""Small networks that are half robust after seconds of training, on digits at two resolutions."""

from functools import cache

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

from jobs.common.models.classifiers import classifier

TRAIN = 1297
Trained = tuple[nn.Module, Tensor, Tensor]


def data(scale: float, classes: int = 10) -> tuple[Tensor, Tensor]:
    """All digits below `classes`, shuffled: images (n, 1, side, side) in [0, 1], and labels."""
    pixels, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(0))
    images = torch.tensor(pixels / 16, dtype=torch.float32).view(-1, 1, 8, 8)[order]
    chosen = torch.tensor(labels)[order] < classes
    images = functional.interpolate(images[chosen], scale_factor=scale, mode="bilinear")
    return images, torch.tensor(labels)[order][chosen]


@cache
def digits_net(classes: int = 10) -> Trained:
    """For digits of 8x8."""
    return trained("digits_net", 1, 0.1, 250, classes)


@cache
def fast_mnist() -> Trained:
    """For digits of 28x28."""
    return trained("fast_mnist", 3.5, 0.1, 120)


def trained(name: str, scale: float, epsilon: float, steps: int, classes: int = 10) -> Trained:
    """A network trained against FGSM with a random start in L-infinity, and images and labels that it has not seen."""
    images, labels = data(scale, classes)
    train = len(images) * TRAIN // 1797
    stream = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = classifier(name, classes=classes, channels=1)
    optimizer = torch.optim.Adam(net.parameters(), 5e-3)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 5e-3 * (1 - step / steps)
        rows = torch.randint(train, (64,), generator=stream)
        noise = (torch.rand(images[rows].shape, generator=stream) * 2 - 1) * epsilon
        noise.requires_grad_()
        (slope,) = torch.autograd.grad(functional.cross_entropy(net(images[rows] + noise), labels[rows]), noise)
        noise = (noise.detach() + 1.25 * epsilon * slope.sign()).clamp(-epsilon, epsilon)
        loss = functional.cross_entropy(net((images[rows] + noise).clamp(0, 1)), labels[rows])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return net.eval().requires_grad_(False), images[train:], labels[train:]
