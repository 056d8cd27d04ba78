"""What training minimises: the cross entropy of the pixels that count.

Source: the released code of Shah et al. 2018: the sum over pixels by the number of those that count, over all workers.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from jobs.common.metrics.segmentation import IGNORE
from jobs.common.training import parallel


def pixel_loss(logits: Tensor, labels: Tensor, easy_above: float | None = None) -> Tensor:
    """What these images add to the mean cross entropy, in nats, over the pixels of all ranks that count.

    logits: (batch, classes, height, width). labels: int64 (batch, height, width), IGNORE where a pixel does not count.
    easy_above: pixels whose true class has a higher probability do not count either; none: all others do. If no pixel
    counts the loss is 0 and so is its gradient.
    """
    each = functional.cross_entropy(logits.float(), labels, ignore_index=IGNORE, reduction="none")
    counted = labels != IGNORE
    if easy_above is not None:
        counted &= each.detach() >= -math.log(easy_above)
    count = parallel.total(counted.sum())
    return torch.where(counted, each, 0.0).sum() / count.clamp(min=1)
