"""How much of the space a classifier labels as each class: counted at random points, with exact intervals.

The hypotheses are about the whole space, not about data: the share of a class among images says nothing. For generated
data the space is that of latent vectors, and the classifier that of what is generated from them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from jobs.common.metrics.intervals import clopper_pearson, clopper_pearson_upper
from service.errors import FieldError, InputError

Space = Literal["cube", "sphere", "latent"]
"""cube: uniform in [0, 1]^n. sphere: uniform on the unit sphere around 0. latent: N(0, I_n)"""


@dataclass(frozen=True)
class ClassShare:
    """Of `samples` random points, `hits` got the label of a class."""

    hits: int
    samples: int

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise FieldError("samples", "be at least 1", self.samples)
        if not 0 <= self.hits <= self.samples:
            raise FieldError("hits", f"be from 0 to {self.samples}, the number of samples", self.hits)

    @property
    def estimate(self) -> float:
        return self.hits / self.samples

    @property
    def interval(self) -> tuple[float, float]:
        """The exact 95 % interval (Clopper & Pearson 1934)."""
        return clopper_pearson(self.hits, self.samples)

    @property
    def upper(self) -> float:
        """The exact 95 % limit from above, for a bound that grows with the share: 1 - 0.05^(1/samples) without hits."""
        return clopper_pearson_upper(self.hits, self.samples)

    @property
    def sentence(self) -> str:
        """What was counted, and what follows of the hypothesis that a class has at most half of the space."""
        low, high = self.interval
        counted = f"{self.hits} of {self.samples} random points have the label: {self.estimate:.4g} of the space"
        counted += f" [{low:.4g}, {high:.4g}]"
        if not self.hits:
            counted = f"none of {self.samples} random points has the label: at most {self.upper:.3g} of the space"
        if high <= 0.5:
            return f"{counted}; the theorem's hypothesis, at most 0.5, holds"
        if low > 0.5:
            return f"{counted}; the theorem's hypothesis, at most 0.5, fails, and the sharp form alone applies"
        return f"{counted}; whether the theorem's hypothesis, at most 0.5, holds is open"


@torch.no_grad()
def class_shares(
    classifier: Callable[[Tensor], Tensor],
    shape: Sequence[int],
    samples: int,
    generator: torch.Generator,
    space: Space = "cube",
    batch: int = 256,
) -> tuple[ClassShare, ...]:
    """The share of each class at random points, by class.

    classifier: float32 (batch, *shape) on the generator's device -> logits (batch, classes), in evaluation mode; of
    equal logits the first counts. n of the space is the product of the shape. Points are drawn batch by batch: the same
    generator, samples and batch give the same counts.
    InputError: logits that are not finite, or are not (batch, classes); FieldError: no samples, no batch.
    """
    for field, value in (("samples", samples), ("batch", batch)):
        if value < 1:
            raise FieldError(field, "be at least 1", value)
    counts = torch.zeros(0, dtype=torch.int64)
    for start in range(0, samples, batch):
        logits = classifier(random_points(min(batch, samples - start), shape, generator, space))
        if logits.dim() != 2 or not logits.shape[1]:
            raise InputError(f"the classifier must give (batch, classes); its output is {tuple(logits.shape)}")
        if not bool(logits.isfinite().all()):
            raise InputError("the classifier must give finite logits; at random points some are NaN or infinite")
        hits = torch.bincount(logits.argmax(1).cpu(), minlength=logits.shape[1])
        counts = hits if not start else counts + hits
    return tuple(ClassShare(int(hits), samples) for hits in counts)


def random_points(count: int, shape: Sequence[int], generator: torch.Generator, space: Space = "cube") -> Tensor:
    """Points of a space: float32 (count, *shape)."""
    size = (count, *shape)
    if space == "cube":
        return torch.rand(size, generator=generator, device=generator.device)
    if space == "latent":
        return torch.randn(size, generator=generator, device=generator.device)
    normal = torch.randn(size, generator=generator, device=generator.device, dtype=torch.float64)
    norms = torch.linalg.vector_norm(normal.flatten(1), dim=1)
    points: Tensor = (normal / norms.reshape(-1, *[1] * len(shape))).float()
    return points
