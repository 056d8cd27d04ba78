"""The extreme eigenvalues of a symmetric matrix that is known by its products with vectors, and its eigenvectors.

Source: Li et al. 2018, section 6 and figure 7 ("Are we really seeing convexity?").
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, eigsh

from jobs.common.curvature.hessian import SymmetricMatrix
from service.errors import FieldError

Product = Callable[[np.ndarray], np.ndarray]
"""A symmetric matrix as what it does to a vector: float64 (size,) -> (size,)"""

DENSE = 32  # matrices up to this size are written out: Lanczos iterations need more room than they leave


@dataclass(frozen=True)
class Ends:
    """Several eigenvalues at each end of a spectrum, each with the residual |H v - lambda v| of its vector of length 1.

    An eigenvalue lies within the residual of what is given. All float64.
    """

    largest: np.ndarray
    """(top,), descending"""
    largest_residuals: np.ndarray
    smallest: np.ndarray
    """(bottom,), ascending"""
    smallest_residuals: np.ndarray
    products: int
    """of the matrix with a vector, that it took"""

    @property
    def ratio(self) -> float:
        """|smallest / largest| of all: near 0 where the loss is nearly convex; NaN if all eigenvalues are zero."""
        smallest, largest = float(self.smallest[0]), float(self.largest[0])
        return abs(smallest / largest) if largest else (float("inf") if smallest else float("nan"))


def ends(matrix: SymmetricMatrix, top: int, bottom: int, *, seed: int, tolerance: float = 0.01) -> Ends:
    """The `top` largest and the `bottom` smallest eigenvalues with their sign, at most as many as there are.

    By Lanczos iterations. The eigenvalue of largest magnitude is one end. Shifted by it, the matrix has eigenvalues of
    one sign, and those of largest magnitude are the other end. (The released code shifts by 0.51 of it, which returns
    the first end again where all eigenvalues are alike.) More than one at the first end are computed with the matrix
    shifted by the other one. tolerance: relative to the width of the spectrum, or to the largest magnitude.
    FloatingPointError if a product is not finite; scipy's ArpackNoConvergence if the iterations do not settle.
    """
    size, device = matrix.size, matrix.device

    def product(vector: np.ndarray) -> np.ndarray:
        result: np.ndarray = matrix.products(torch.from_numpy(vector)[None].to(device))[0].cpu().numpy()
        return result

    counted = _Counted(product, size)
    top, bottom = min(top, size), min(bottom, size)
    start = _start(size, seed)
    if not counted(start).any():  # a random vector is not orthogonal to anything: the matrix is zero
        return Ends(np.zeros(top), np.zeros(top), np.zeros(bottom), np.zeros(bottom), counted.calls)
    if size <= max(DENSE, 4 * max(top, bottom)):
        values, vectors = np.linalg.eigh(_dense(counted, size))
        residuals = np.linalg.norm(np.stack([counted(each) for each in vectors.T]).T - values * vectors, axis=0)
        down = np.arange(size)[::-1][:top]
        return Ends(values[down], residuals[down], values[:bottom], residuals[:bottom], counted.calls)

    def largest_beside(shift: float, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The eigenvalues farthest from `shift`, the farthest first, and their residuals."""
        operator = LinearOperator((size, size), matvec=lambda each: counted(each) - shift * each, dtype=np.float64)
        values, vectors = eigsh(operator, k=count, which="LM", tol=tolerance, v0=start)
        order = np.argsort(-np.abs(values), kind="stable")
        values, vectors = values[order] + shift, vectors[:, order]
        products = np.stack([counted(vector) for vector in vectors.T])
        return values, np.linalg.norm(products - values[:, None] * vectors.T, axis=1)

    near, near_residuals = largest_beside(0.0, 1)
    one = near[0]
    far, far_residuals = largest_beside(one, bottom if one > 0 else top)
    if (count := top if one > 0 else bottom) > 1:
        near, near_residuals = largest_beside(far[0], count)
    if one > 0:
        return Ends(near, near_residuals, far, far_residuals, counted.calls)
    return Ends(far, far_residuals, near, near_residuals, counted.calls)


def top_eigenvectors(
    product: Product, size: int, count: int, *, seed: int, tolerance: float = 0.01
) -> tuple[np.ndarray, np.ndarray]:
    """The eigenvalues of largest magnitude, the largest first, and their vectors of length 1.

    Returns float64 (count,) and (count, size). The sign of a vector is chosen so that its largest entry is positive.
    InputError if the matrix has fewer; FloatingPointError and ArpackNoConvergence as for `ends`.
    """
    if not 1 <= count <= size:
        raise FieldError("eigenvectors", f"be 1 to {size}, the number of weights of the Hessian", count)
    counted = _Counted(product, size)
    if size <= max(DENSE, 2 * count):
        values, vectors = np.linalg.eigh(_dense(counted, size))
    else:
        operator = LinearOperator((size, size), matvec=counted, dtype=np.float64)
        values, vectors = eigsh(operator, k=count, which="LM", tol=tolerance, v0=_start(size, seed))
    order = np.argsort(-np.abs(values), kind="stable")[:count]
    chosen = vectors[:, order].T
    largest = chosen[np.arange(count), np.abs(chosen).argmax(1)]
    return values[order], chosen * np.sign(largest)[:, None]


class _Counted:
    """A product that counts its calls and refuses to go on with numbers that are not finite."""

    def __init__(self, product: Product, size: int) -> None:
        self._product, self._size = product, size
        self.calls = 0

    def __call__(self, vector: np.ndarray) -> np.ndarray:
        self.calls += 1
        result = self._product(vector.reshape(self._size))
        if not np.isfinite(result).all():
            raise FloatingPointError("the product of the Hessian with a vector is not finite")
        return result


def _start(size: int, seed: int) -> np.ndarray:
    """Where the iterations start: without it, scipy would draw anew at every call."""
    start: np.ndarray = torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).numpy()
    return start


def _dense(product: Product, size: int) -> np.ndarray:
    """The matrix itself, made symmetric, as its rounding may not be."""
    columns = np.stack([product(unit) for unit in np.eye(size)])
    symmetric: np.ndarray = (columns + columns.T) / 2
    return symmetric
