"""Patches that nobody optimised, which a patch has to beat: covering a part of a person hides some people already.

Names and kinds of the rows are those of the paper's table: grey, grey++ (`best_colour`), random, seurat (`look_alike`).
"""

import numpy as np
import torch
from torch import Tensor

GREY = 0.5


def plain(colour: tuple[float, float, float], size: tuple[int, int]) -> Tensor:
    """One colour: (3, height, width)."""
    return torch.tensor(colour).view(3, 1, 1).expand(3, *size).clone()


def upside_down(patch: Tensor) -> Tensor:
    """Turned by 180 degrees: the same colours, and the same edges but for their order."""
    return patch.flip(1, 2)


def look_alike(patch: Tensor, seed: int) -> Tensor:
    """A picture with the pixels of a patch, in blobs as large as its own, in other places.

    The amplitudes of its Fourier transform get random phases, the same in all channels; then the place with the k-th
    value takes the pixel of the k-th value, both along the axis on which its colours differ most. So the palette is
    that of the patch exactly, and the sizes of blobs are nearly. patch: (3, height, width).
    Source: Theiler et al. 1992, "Testing for nonlinearity in time series: the method of surrogate data", for images.
    """
    stream = np.random.default_rng(seed)
    pixels = patch.double().numpy()
    height, width = pixels.shape[1:]
    # mirrored, as otherwise the jump from one border to the opposite one would be an edge of the picture
    mirrored = np.pad(pixels, ((0, 0), (0, height), (0, width)), mode="symmetric")
    # phases of real noise: those of opposite frequencies are opposite
    phases = np.angle(np.fft.fft2(stream.normal(size=mirrored.shape[1:])))
    spectrum = np.fft.fft2(mirrored - mirrored.mean((1, 2), keepdims=True))
    surrogate = np.fft.ifft2(np.abs(spectrum) * np.exp(1j * (np.angle(spectrum) + phases))).real[:, :height, :width]
    axis = main_axis(pixels)
    places, order = (np.argsort(np.tensordot(axis, each, 1).ravel(), kind="stable") for each in (surrogate, pixels))
    result = np.empty((3, height * width))
    result[:, places] = pixels.reshape(3, -1)[:, order]
    return torch.from_numpy(result.reshape(pixels.shape)).to(patch.dtype)


def main_axis(pixels: np.ndarray) -> np.ndarray:
    """The direction in which colours (3, height, width) differ most: (3,), of length 1, of more light than less."""
    axis: np.ndarray = np.linalg.eigh(np.cov(pixels.reshape(3, -1)))[1][:, -1]
    return axis if axis.sum() >= 0 else -axis


def colours(levels: int) -> list[tuple[float, float, float]]:
    """All colours whose channels are one of some equally spaced levels from 0 to 1."""
    values = np.linspace(0, 1, levels).tolist()
    return [(red, green, blue) for red in values for green in values for blue in values]
