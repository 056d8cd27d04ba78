"""Images with every pixel replicated b times b: how epsilon and norms scale with the resolution.

If every classifier of the images has adversarial examples within epsilon for a share of a class, then every classifier
of the replicated ones has them within `scale(b, q)` epsilon in Lq for the same share: a classifier of the large images
is one of the small ones once they are replicated. From q = 1 on the converse holds too, since averages over the blocks
are shorter by at least the same factor. Below 1, and in L0, an average may change wherever one pixel of its block does,
and only the first half holds. Norms of images scale as epsilon does, so that resolution alone changes nothing.

Source: Shafahi et al. 2019 ("Are adversarial examples inevitable?"), theorem 4 (its L2 case), and its proof.
"""

import math

import numpy as np
import torch
from torch import Tensor

from service.errors import FieldError


def scale(b: int, q: float) -> float:
    """By how much epsilon and the norm of an image grow in Lq: b^(2/q), 1 in Linf, b^2 in L0, which counts pixels.

    FieldError: a factor that is no whole number from 1 on, or a q below 0.
    """
    check_factor(b)
    if not q >= 0:  # NaN is not either
        raise FieldError("q", "be at least 0, infinity included", q)
    return math.pow(b, 2 / q if q else 2)


def equivalent(q: float) -> bool:
    """Whether both halves of the theorem hold in Lq: from q = 1 on."""
    return q >= 1


def replicate(images: Tensor, b: int) -> Tensor:
    """Every pixel as a block of b times b: (batch, channels, h, w) -> (batch, channels, h b, w b)."""
    check_factor(b)
    return images.repeat_interleave(b, dim=-2).repeat_interleave(b, dim=-1)


def average(images: Tensor, b: int) -> Tensor:
    """The mean of every block of b times b: (batch, channels, h b, w b) -> (batch, channels, h, w).

    It undoes `replicate`. FieldError unless b divides both sides.
    """
    check_factor(b)
    if images.shape[-1] % b or images.shape[-2] % b:
        size = f"{images.shape[-2]} and {images.shape[-1]}, the height and width"
        raise FieldError("b", f"divide {size}", b)
    return torch.nn.functional.avg_pool2d(images, b)


def check_factor(b: int) -> None:
    """FieldError unless it is a whole number from 1 on: other kinds of enlargement do not keep the law."""
    if isinstance(b, bool) or not isinstance(b, int | np.integer) or b < 1:
        raise FieldError("b", "be a whole number of at least 1, as pixels are replicated", b)
