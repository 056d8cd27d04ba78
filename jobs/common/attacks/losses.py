"""What attacks maximise: functions of logits and goal, one value a sample, the larger the nearer to the goal.

Of a model of pixels, one value a pixel; the goal averages them.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from jobs.common.attacks.base import Goal, Loss
from jobs.common.attacks.projections import TINY

LossName = Literal["cross_entropy", "margin", "dlr"]


def cross_entropy(logits: Tensor, goal: Goal) -> Tensor:
    """Cross entropy of the label; targeted: minus that of the target. Source: Goodfellow et al. 2015."""
    if goal.targets is not None:
        return -functional.cross_entropy(logits, goal.targets, reduction="none")
    return functional.cross_entropy(logits, goal.labels, reduction="none")


def margin(logits: Tensor, goal: Goal) -> Tensor:
    """The best other logit minus the label's; targeted: the target's minus the best other. Above 0 at the goal.

    Source: Carlini & Wagner 2017, f_6.
    """
    if goal.targets is not None:
        return _of(logits, goal.targets) - _best_other(logits, goal.targets)
    return _best_other(logits, goal.labels) - _of(logits, goal.labels)


def soft_margin(logits: Tensor, goal: Goal) -> Tensor:
    """The logarithm of the odds of the other classes against the label; targeted: of the target against the others.

    Cross entropy is a rising function of it, so both lead the same way, but this gradient does not vanish in float32
    where the label is near certain.
    """
    if goal.targets is not None:
        return _of(logits, goal.targets) - _others(logits, goal.targets).logsumexp(1)
    return _others(logits, goal.labels).logsumexp(1) - _of(logits, goal.labels)


def dlr(logits: Tensor, goal: Goal) -> Tensor:
    """Difference of logits ratio. Needs 3 classes, targeted 4. Source: Croce & Hein 2020 (AutoAttack), eq. 6 and 7.

    The gradient flows through the denominator too, as in the code released with the paper.
    """
    ordered = logits.sort(dim=1, descending=True).values
    if goal.targets is not None:
        spread = ordered[:, 0] - (ordered[:, 2] + ordered[:, 3]) / 2
        return -(_of(logits, goal.labels) - _of(logits, goal.targets)) / (spread + TINY)
    return margin(logits, goal) / (ordered[:, 0] - ordered[:, 2] + TINY)


LOSSES: Mapping[str, Loss] = {"cross_entropy": cross_entropy, "margin": margin, "dlr": dlr}


def fewest_classes(loss: LossName, targeted: bool) -> int:
    """How many logits a loss compares."""
    return 2 if loss != "dlr" else 4 if targeted else 3


def _of(logits: Tensor, classes: Tensor) -> Tensor:
    return logits.gather(1, classes.unsqueeze(1)).squeeze(1)


def _best_other(logits: Tensor, classes: Tensor) -> Tensor:
    return _others(logits, classes).amax(1)


def _others(logits: Tensor, classes: Tensor) -> Tensor:
    """The logits, that of one class minus infinity."""
    return logits.scatter(1, classes.unsqueeze(1), -torch.inf)
