"""What a network makes of images: the loss of each, and whether it is classified correctly."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from jobs.common.imports import resolve
from jobs.common.mean_loss.losses import LOSSES
from jobs.common.passes import passes


@dataclass(frozen=True)
class Scores:
    """What was computed at a point, image by image, as far as it went."""

    losses: Tensor
    """float32 (images,)"""
    right: Tensor
    """bool (images,): classified correctly"""
    censored: bool
    """stopped early, being far above the bound"""

    @property
    def loss(self) -> float:
        """The mean, NaN or infinite if an image's is."""
        return float(self.losses.double().mean())

    @property
    def accuracy(self) -> float:
        """A share in [0, 1]."""
        return float(self.right.double().mean())

    @property
    def not_finite(self) -> int:
        """Images whose loss is NaN or infinite."""
        return int((~torch.isfinite(self.losses)).sum())

    def standard_error(self, population: int) -> float:
        """Of the mean loss, of images drawn without replacement from a population: s sqrt((1 - n / N) / n)."""
        count = len(self.losses)
        if count >= population:
            return 0.0
        deviation = float(self.losses.double().std()) if count > 1 else math.nan
        return deviation * math.sqrt((1 - count / population) / count)


def plain_scores(
    network: nn.Module, weights: Mapping[str, Tensor], images: Tensor, labels: Tensor, loss: str, batch: int = 256
) -> Scores:
    """The scores of a network in evaluation mode with other weights, computed as the network is written, in float32.

    weights: of any of its tensors, by their names in `state_dict`. batch: images in a pass on a CPU.
    """
    compute = resolve(loss, LOSSES, "loss")

    @torch.no_grad()
    def scores(rows: slice) -> tuple[Tensor, Tensor]:
        logits = functional_call(network, dict(weights), (images[rows],), tie_weights=True).float()
        return compute(logits, labels[rows]), correct(logits, labels[rows])

    parts = passes(scores, len(images), network, images.shape[1:], purpose="losses", on_cpu=batch)
    losses, right = zip(*parts, strict=True)
    return Scores(torch.cat(losses).cpu(), torch.cat(right).cpu(), censored=False)


def correct(logits: Tensor, labels: Tensor) -> Tensor:
    """Which images are classified correctly: bool (batch,). NaN is no answer."""
    return (logits.argmax(1) == labels) & ~logits.isnan().any(1)
