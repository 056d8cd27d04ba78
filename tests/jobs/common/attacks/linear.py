"""Softmax regression on scikit-learn's digits: for a linear model the exact robustness is a greedy sum."""

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

TRAIN = 1297


class LinearDigits:
    """The model, and the 500 test images with their labels."""

    def __init__(self) -> None:
        images, labels = load_digits(return_X_y=True)
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0)).numpy()
        images, labels = (images / 16).astype(np.float32)[order], labels[order]
        fit = LogisticRegression(C=1.0, max_iter=1000).fit(images[:TRAIN], labels[:TRAIN])
        self.model = linear(torch.tensor(fit.coef_), torch.tensor(fit.intercept_))
        self.images = torch.tensor(images[TRAIN:]).view(-1, 1, 8, 8)
        self.labels = torch.tensor(labels[TRAIN:])

    def robust(self, norm: str, epsilon: float) -> Tensor:
        """Which images no perturbation breaks: bool (500,)."""
        return robust(self.model, self.images, self.labels, norm, epsilon)


def linear(weights: Tensor, biases: Tensor) -> nn.Sequential:
    """A model with these logits. weights: (classes, pixels); biases: (classes,)."""
    layer = nn.Linear(weights.shape[1], len(weights))
    with torch.no_grad():
        layer.weight.copy_(weights)
        layer.bias.copy_(biases)
    return nn.Sequential(nn.Flatten(), layer).eval()


def robust(model: nn.Sequential, images: Tensor, labels: Tensor, norm: str, epsilon: float) -> Tensor:
    """Exactly which images no perturbation within a ball and the box breaks: bool (batch,)."""
    return least_norms(model, images, labels, norm) > epsilon


def least_norms(
    model: nn.Sequential, images: Tensor, labels: Tensor, norm: str, targets: Tensor | None = None
) -> Tensor:
    """Exactly how near the border to another class is within the box, in float64: (batch,); inf where there is none.

    targets: of the border to one class alone. The margin over another class falls by |w| for each unit that a pixel
    moves, and a pixel can move as far as its room, to the face of the box. L0 and L1 spend whole rooms in the order of
    their worth; in Linf and L2 the way grows in one number, t, with moves min(t, room) and min(t |w|, room), until the
    gap is closed: what is gained is linear in t between the places where pixels reach their face.
    """
    layer = model[1]
    assert isinstance(layer, nn.Linear)
    weights, biases = layer.weight.detach().double().numpy(), layer.bias.detach().double().numpy()
    pixels, own, batch = images.flatten(1).double().numpy()[:, None], labels.numpy(), np.arange(len(images))
    differences = weights[own][:, None] - weights  # (batch, classes, pixels), as all that follow
    gap = (differences * pixels).sum(2) + biases[own][:, None] - biases
    slope, room = np.abs(differences), np.where(differences > 0, pixels, 1 - pixels)
    with np.errstate(divide="ignore", invalid="ignore"):  # of a class with the same weights, as each is of itself
        norms = _ordered(slope, room, gap, norm) if norm in ("L0", "L1") else _growing(slope, room, gap, norm)
    norms = np.where(gap <= 0, 0.0, np.where((slope * room).sum(2) < gap, np.inf, norms))
    norms[batch, own] = np.inf
    return torch.tensor(norms.min(1) if targets is None else norms[batch, targets.numpy()])


def _ordered(slope: np.ndarray, room: np.ndarray, gap: np.ndarray, norm: str) -> np.ndarray:
    """(batch, classes). Whole rooms one after the other; in L1 a part of the last."""
    order = np.argsort(-slope * room if norm == "L0" else -slope)
    slope, room = np.take_along_axis(slope, order, 2), np.take_along_axis(room, order, 2)
    before, last = _reached(slope * room, np.cumsum(slope * room, 2), gap)
    if norm == "L0":
        return last[..., 0] + 1.0
    spent = np.take_along_axis(np.cumsum(room, 2) - room, last, 2)
    return (spent + (gap[..., None] - before) / np.take_along_axis(slope, last, 2))[..., 0]


def _growing(slope: np.ndarray, room: np.ndarray, gap: np.ndarray, norm: str) -> np.ndarray:
    """(batch, classes). All pixels at once, each at its speed until it has reached its face."""
    speed = np.ones_like(slope) if norm == "Linf" else slope
    times = np.divide(room, speed, out=np.zeros_like(room), where=speed > 0)
    order = np.argsort(times)
    arrived, moving = (np.take_along_axis(slope * each, order, 2) for each in (room, speed))
    still = np.flip(np.cumsum(np.flip(moving, 2), 2), 2) - moving  # gained per time after each arrival
    gains = np.cumsum(arrived, 2) + np.take_along_axis(times, order, 2) * still
    before, last = _reached(arrived, gains, gap)
    time = (gap[..., None] - before) / np.take_along_axis(still + moving, last, 2)
    return np.linalg.norm(np.minimum(time * speed, room), np.inf if norm == "Linf" else 2, axis=2)


def _reached(arrived: np.ndarray, gains: np.ndarray, gap: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What whole rooms have gained before the gap is closed, and the place of the room that closes it."""
    last = np.minimum((gains < gap[..., None]).sum(2, keepdims=True), gains.shape[2] - 1)
    return np.take_along_axis(np.cumsum(arrived, 2) - arrived, last, 2), last
