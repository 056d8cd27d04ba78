"""How uncertain the label of a point is (Zhang & Evans 2022, "Understanding Intrinsic Robustness Using Label
Uncertainty", definition 4.1), and how uncertain the labels in an error region are on average (definition 4.2).

The error regions of good models have labels of high uncertainty. The concentration of a data set knows nothing of
labels: the region with the least expansion may lie among points that every model gets right. Regions whose average
uncertainty is at least gamma come nearer to what models do, and expand more, so that the ceiling is lower.

The uncertainty is one of people: the source takes the shares of annotators who chose each class (CIFAR-10H). Where
there are none, the probabilities of a model may stand in for them. Then the ceiling is about what that model finds
hard, not people, and it moves with how well the model is calibrated.
"""

import torch
from torch import Tensor

from service.errors import InputError

ROUNDING = 1e-3  # by which the probabilities of a point may miss 1


def label_uncertainty(probabilities: Tensor, labels: Tensor) -> Tensor:
    """1 - p(label) + the largest p of another class: float64 (n,) in [0, 2].

    0: everybody chose the label. 1: another class is as likely as the label. Above 1: another is more likely.
    probabilities: float (n, classes), of each class for each point. labels: int64 (n,), the class of the data set.
    InputError: fewer than two classes, a row that is no distribution, or a label that is no class.
    """
    if probabilities.ndim != 2 or probabilities.shape[1] < 2 or labels.shape != probabilities.shape[:1]:
        raise InputError(
            "probabilities must have a row of two classes or more for each label; their shape is "
            f"{tuple(probabilities.shape)}, for {len(labels):,} labels"
        )
    probabilities = probabilities.double()
    wrong = ~((probabilities >= 0).all(1) & ((probabilities.sum(1) - 1).abs() <= ROUNDING))  # NaN is wrong too
    if bool(wrong.any()):
        row = int(wrong.nonzero()[0])
        raise InputError(
            f"probabilities must be at least 0 and add up to 1; those of point {row} add up to "
            f"{float(probabilities[row].sum()):g}, the least is {float(probabilities[row].min()):g}"
        )
    if bool(((labels < 0) | (labels >= probabilities.shape[1])).any()):
        raise InputError(
            f"labels must be classes 0 to {probabilities.shape[1] - 1}, as many as there are probabilities; they are "
            f"{int(labels.min())} to {int(labels.max())}"
        )
    column = labels[:, None]
    others = probabilities.scatter(1, column, -torch.inf).amax(1)
    return 1 - probabilities.gather(1, column).squeeze(1) + others
