"""Pictures seen in perspective: points of a plane, the values under them, and the whole plane as a camera sees it."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from jobs.invisibility_cloak.patch.perspective import homography, projected


def view(corners: np.ndarray, seen: np.ndarray) -> Tensor:
    """The homography that takes four points to four others, no three of them on a line: float64 (3, 3).

    corners, seen: (4, 2), x and y.
    """
    return homography(torch.from_numpy(corners)[None].double(), torch.from_numpy(seen)[None].double())[0]


def moved(points: np.ndarray, matrix: Tensor) -> np.ndarray:
    """Points (n, 2) under a homography: (n, 2)."""
    return projected(matrix[..., None], torch.from_numpy(points).double().T).T.numpy()


def sampled(image: np.ndarray, places: np.ndarray, outside: float = 0.0) -> np.ndarray:
    """Values of an image at places between its pixels, interpolated linearly: float64 (n, channels).

    image: (height, width, channels). places: (n, 2), x and y in pixels from the upper left corner, centres at halves.
    outside: what is seen beside the image.
    """
    pixels = torch.from_numpy(image).double().permute(2, 0, 1)[None] - outside
    size = torch.tensor([image.shape[1], image.shape[0]]).double()
    grid = 2 * torch.from_numpy(places).double() / size - 1
    values = functional.grid_sample(pixels, grid[None, None], align_corners=False)
    return (values[0, :, 0].T + outside).numpy()


def warped(image: np.ndarray, matrix: Tensor, height: int, width: int, outside: float) -> np.ndarray:
    """An image after a perspective: float64 (height, width, channels).

    image: (h, w, channels). matrix: takes places of the result to places of the image. outside: as of `sampled`.
    """
    down, across = np.mgrid[:height, :width] + 0.5
    places = moved(np.stack([across.ravel(), down.ravel()], 1), matrix)
    return sampled(image, places, outside).reshape(height, width, image.shape[2])
