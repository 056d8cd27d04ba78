"""How far the weights of a class turned: the rotation of a decision boundary."""

import math

from torch import Tensor


def rotation(before: Tensor, after: Tensor) -> float:
    """The angle between two weight vectors (D,) of a class, in degrees. NaN if one of them is zero."""
    a, b = before.double(), after.double()
    # the difference and the sum of the unit vectors: exact where the arc cosine of a product is not
    a, b = a / a.norm(), b / b.norm()
    return math.degrees(2 * math.atan2(float((a - b).norm()), float((a + b).norm())))


def class_vector(weight: Tensor, row: int) -> Tensor:
    """The weights (D,) of a class against the mean of all: what a softmax over weight (classes, D) depends on."""
    return weight[row] - weight.mean(0)
