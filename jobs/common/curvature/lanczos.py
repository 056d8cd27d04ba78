"""Lanczos iterations of several start vectors side by side, and the quadrature rules that they are.

Source: Golub & Meurant 2010, "Matrices, Moments and Quadrature with Applications", chapters 4 and 6.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from jobs.common.curvature.hessian import SymmetricMatrix

INVARIANT = 1e-12  # of the largest entry: a start vector has no more of the matrix than was gone through


@dataclass(frozen=True)
class Quadrature:
    """For each start vector v of length 1, a rule with v^T f(H) v = sum_i weights_i f(nodes_i) for low polynomials f.

    The first and last nodes are near the ends of the spectrum.
    """

    nodes: Tensor
    """float64 (starts, steps), ascending"""
    weights: Tensor
    """float64 (starts, steps), not below 0; the sum of each row is 1"""


def lanczos(matrix: SymmetricMatrix, starts: Tensor, steps: int) -> Quadrature:
    """steps: products with each start vector, at most the size of the matrix. starts: float64 (count, size), not zero.

    Each new vector is made orthogonal to all before it, twice: without, copies of the largest eigenvalues would appear.
    Memory: count x (steps + 1) x size numbers. FloatingPointError if a product is not finite.
    """
    count, size = starts.shape
    steps = min(steps, size)
    basis = starts.new_zeros(count, steps + 1, size)
    basis[:, 0] = starts / starts.norm(dim=1, keepdim=True)
    tridiagonal = starts.new_zeros(count, steps, steps)
    ended = torch.zeros(count, dtype=torch.bool, device=starts.device)
    for step in range(steps):
        after = matrix.products(basis[:, step])  # (count, size)
        if not bool(torch.isfinite(after).all()):
            raise FloatingPointError("the product of the Hessian with a vector is not finite")
        before = basis[:, : step + 1]
        for _ in range(2):
            shares = torch.einsum("nks,ns->nk", before, after)
            after = after - torch.einsum("nk,nks->ns", shares, before)
            tridiagonal[:, step, step] += shares[:, -1]
        # where the start vector has ended there is nothing more: a node that is there already, of weight 0
        tridiagonal[:, step, step] = torch.where(ended, tridiagonal[:, 0, 0], tridiagonal[:, step, step])
        norms = after.norm(dim=1)
        ended = norms <= INVARIANT * tridiagonal.abs().amax((1, 2))
        basis[:, step + 1] = torch.where(ended[:, None], 0.0, after / norms.clamp_min(1e-300)[:, None])
        if step + 1 < steps:
            tridiagonal[:, step, step + 1] = tridiagonal[:, step + 1, step] = torch.where(ended, 0.0, norms)
    nodes, vectors = torch.linalg.eigh(tridiagonal.cpu())
    weights = vectors[:, 0].square()
    return Quadrature(nodes, weights / weights.sum(1, keepdim=True))
