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
    """Exactly which images no perturbation within a ball and the box breaks, in float64: bool (batch,).

    The margin over another class falls by at most max w.d over |d| <= epsilon, 0 <= x + d <= 1. Linf: every pixel goes
    as far as it can. L1: the pixels of the largest |w| go to their face until epsilon is spent. L2: d_i =
    min(t |w_i|, room_i), with t such that the norm is epsilon.
    """
    layer = model[1]
    assert isinstance(layer, nn.Linear)
    weights, biases = layer.weight.detach().double().numpy(), layer.bias.detach().double().numpy()
    result = []
    for pixels, label in zip(images.flatten(1).double().numpy(), labels.tolist(), strict=True):
        margins = []
        for other in set(range(len(weights))) - {label}:
            slope = weights[label] - weights[other]
            room = np.where(slope > 0, pixels, 1 - pixels)
            loss = np.abs(slope) @ _moves(np.abs(slope), room, norm, epsilon)
            margins.append(slope @ pixels + biases[label] - biases[other] - loss)
        result.append(min(margins) > 0)
    return torch.tensor(result)


def least_norms(
    model: nn.Sequential, images: Tensor, labels: Tensor, norm: str, targets: Tensor | None = None
) -> Tensor:
    """Exactly how near the border to another class is within the box, in float64: (batch,); inf where there is none.

    targets: of the border to one class alone. L0 and L1 spend whole rooms in the order of their worth; in Linf and L2
    the way grows in one number, t, with moves min(t, room) and min(t |w|, room), until it closes the gap.
    """
    layer = model[1]
    assert isinstance(layer, nn.Linear)
    weights, biases = layer.weight.detach().double().numpy(), layer.bias.detach().double().numpy()
    least = []
    for row, (pixels, label) in enumerate(zip(images.flatten(1).double().numpy(), labels.tolist(), strict=True)):
        others = set(range(len(weights))) - {label} if targets is None else {int(targets[row])}
        distances = []
        for other in others:
            slope = weights[label] - weights[other]
            gap = slope @ pixels + biases[label] - biases[other]
            distances.append(_least(np.abs(slope), np.where(slope > 0, pixels, 1 - pixels), gap, norm))
        least.append(min(distances))
    return torch.tensor(least, dtype=torch.float64)


def _least(slope: np.ndarray, room: np.ndarray, gap: float, norm: str) -> float:
    if gap <= 0:
        return 0.0
    if slope @ room < gap:
        return float("inf")
    if norm in ("L0", "L1"):
        order = np.argsort(-slope * room if norm == "L0" else -slope)
        gains = np.cumsum((slope * room)[order])
        last = int(np.searchsorted(gains, gap))
        if norm == "L0":
            return float(last + 1)
        before = gains[last - 1] if last else 0.0
        return float(room[order][:last].sum() + (gap - before) / slope[order][last])
    speed = np.ones_like(slope) if norm == "Linf" else slope
    low, high = 0.0, 1e6
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if slope @ np.minimum(middle * speed, room) < gap else (low, middle)
    return float(np.linalg.norm(np.minimum(low * speed, room), np.inf if norm == "Linf" else 2))


def _moves(slope: np.ndarray, room: np.ndarray, norm: str, epsilon: float) -> np.ndarray:
    if norm == "Linf":
        return np.minimum(epsilon, room)
    if norm == "L1":
        order = np.argsort(-slope)
        spent = np.cumsum(room[order]) - room[order]
        moves = np.empty_like(room)
        moves[order] = np.clip(epsilon - spent, 0, room[order])
        return moves
    low, high = 0.0, 1e6
    for _ in range(100):
        middle = (low + high) / 2
        short = np.linalg.norm(np.minimum(middle * slope, room)) < epsilon
        low, high = (middle, high) if short else (low, middle)
    return np.minimum(low * slope, room)
