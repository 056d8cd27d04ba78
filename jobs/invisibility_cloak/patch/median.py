"""The median filter of the rendering function, with its gradient."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional


def median_filtered(images: Tensor, size: int) -> Tensor:
    """The median of each channel over squares around every pixel; the gradient reaches the pixel that it is.

    images: (batch, channels, height, width) or without the batch. size: of the square, odd, at most twice the shorter
    side. Beyond the border an image is mirrored. Returns the same shape.
    """
    if size == 1:
        return images
    reach, middle = size // 2, size * size // 2
    batch = images if images.ndim == 4 else images[None]
    padded = functional.pad(batch, [reach] * 4, mode="reflect")
    squares = padded.unfold(2, size, 1).unfold(3, size, 1).flatten(4)  # (batch, channels, height, width, size x size)
    if images.device.type == "cpu":  # two to three times as fast as torch's median, at every step of a search
        order = np.argpartition(squares.detach().numpy(), middle, axis=-1)
        places = torch.from_numpy(order[..., middle])
    else:  # torch's median is not deterministic on a GPU
        places = squares.detach().sort(dim=4, stable=True).indices[..., middle]
    return squares.gather(4, places[..., None])[..., 0].reshape(images.shape)
