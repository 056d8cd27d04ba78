"""The trace of a symmetric matrix and of its diagonal blocks, from products with random vectors, with standard errors.

Sources: Hutchinson 1990, "A stochastic estimator of the trace of the influence matrix for Laplacian smoothing splines";
Meyer et al. 2021, "Hutch++: optimal stochastic trace estimation", algorithm 1.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from jobs.common.curvature.hessian import SymmetricMatrix


@dataclass(frozen=True)
class TraceEstimate:
    """standard_error: of the value, from the spread over probes; NaN of a single probe."""

    value: float
    standard_error: float


def sketch_basis(products: Tensor) -> Tensor:
    """Orthonormal vectors (count, size) that span products of the matrix with random vectors, (count, size)."""
    basis: Tensor = torch.linalg.qr(products.T).Q
    return basis.T.contiguous()


def shares(
    matrix: SymmetricMatrix, vectors: Tensor, layers: Mapping[str, slice], basis: Tensor | None = None
) -> Tensor:
    """What each probe says of each block's trace: float64 (probes, blocks), whose sum is what it says of the whole.

    vectors: random probes (probes, size). With v for a probe and H for the matrix, a block's share is v_b . (H v)_b,
    whose mean is the trace of the block. basis: orthonormal Q (count, size), independent of the probes; v is then what
    is left of a probe beside it, and the share of Q itself is `basis_shares`, exact. As few directions hold most of a
    trained network's curvature, the spread over probes becomes far smaller.
    """
    left = vectors if basis is None else vectors - (vectors @ basis.T) @ basis
    entries = left * matrix.products(left)
    return torch.stack([entries[:, place].sum(1) for place in layers.values()], dim=1)


def basis_shares(products: Tensor, basis: Tensor, layers: Mapping[str, slice]) -> Tensor:
    """The trace of H Q Q^T in each block, exactly: float64 (blocks,). products: of H with the rows of Q, `basis`."""
    entries = (products * basis).sum(0)  # of its diagonal
    return torch.stack([entries[place].sum() for place in layers.values()])


def estimates(shares: Tensor, layers: Mapping[str, slice], exact: Tensor | None = None) -> dict[str, TraceEstimate]:
    """The trace of the whole, under "", and of each block. exact: (blocks,), of the basis, if there was one."""
    columns = {"": shares.sum(1), **{name: shares[:, index] for index, name in enumerate(layers)}}
    known = dict.fromkeys(columns, 0.0)
    if exact is not None:
        known = {"": float(exact.sum()), **{name: float(exact[index]) for index, name in enumerate(layers)}}
    count = len(shares)
    return {
        name: TraceEstimate(
            known[name] + float(values.mean()), float(values.std()) / math.sqrt(count) if count > 1 else math.nan
        )
        for name, values in columns.items()
    }
