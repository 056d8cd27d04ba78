"""What an attack wants of each sample: another class, or one class; of a map, that of every pixel.

A goal of pixels is how one attack serves segmentation: its loss is the mean over the pixels that count, and a sample is
at its goal when all of them are. Source of the mean: Arnab, Miksik & Torr 2018, "On the robustness of semantic
segmentation models to adversarial attacks", section 3.
"""

from dataclasses import dataclass, field

from torch import Tensor

NO_CLASS = -1  # the prediction where logits are not finite


def predicted(logits: Tensor) -> Tensor:
    """The class of the largest logit, NO_CLASS where one is not finite: (batch, classes, ...) -> (batch, ...)."""
    return logits.argmax(1).where(logits.isfinite().all(1), NO_CLASS)


@dataclass(frozen=True)
class Goal:
    """What is wanted of each sample: any class but its label, or (targeted) one class.

    labels, targets: int64 (batch,).
    """

    labels: Tensor
    targets: Tensor | None = None

    def reached(self, logits: Tensor) -> Tensor:
        """Which samples are where the attack wants them: (batch, classes) -> bool (batch,).

        None is whose logits are not all finite: the model gives no class, so not another one either.
        """
        predictions = predicted(logits)
        if self.targets is not None:
            return predictions == self.targets
        return (predictions != self.labels) & (predictions != NO_CLASS)

    def share(self, logits: Tensor) -> Tensor:
        """How much of each sample is where the attack wants it: (batch,) in [0, 1], 1 where it is reached."""
        return self.reached(logits).float()

    def average(self, losses: Tensor) -> Tensor:
        """One loss for each sample, of what a loss gives."""
        return losses

    def __getitem__(self, rows: Tensor) -> "Goal":
        return Goal(self.labels[rows], None if self.targets is None else self.targets[rows])


@dataclass(frozen=True)
class PixelGoal(Goal):
    """The same of each pixel that counts.

    labels, targets: int64 (batch, height, width), classes everywhere. counted: bool, the same shape; at least one pixel
    of each sample counts.
    """

    counted: Tensor = field(kw_only=True)

    def reached(self, logits: Tensor) -> Tensor:
        """(batch, classes, height, width) -> bool (batch,): all pixels that count are at the goal."""
        return self.share(logits) == 1

    def share(self, logits: Tensor) -> Tensor:
        there = super().reached(logits) & self.counted
        return there.flatten(1).sum(1) / self.counted.flatten(1).sum(1)

    def average(self, losses: Tensor) -> Tensor:
        """The mean over the pixels that count: (batch, height, width) -> (batch,)."""
        return losses.where(self.counted, 0).flatten(1).sum(1) / self.counted.flatten(1).sum(1)

    def __getitem__(self, rows: Tensor) -> "PixelGoal":
        targets = None if self.targets is None else self.targets[rows]
        return PixelGoal(self.labels[rows], targets, counted=self.counted[rows])


def goal(labels: Tensor, targets: Tensor | None) -> Goal:
    """The goal of labels (batch,), or of maps of labels (batch, height, width), in which below 0 does not count."""
    if labels.dim() == 1:
        return Goal(labels, targets)
    counted = labels >= 0 if targets is None else (labels >= 0) & (targets >= 0)
    return PixelGoal(labels.clamp(min=0), None if targets is None else targets.clamp(min=0), counted=counted)
