"""The spectral density of a symmetric matrix by stochastic Lanczos quadrature, with what it is uncertain by.

Source: Ubaru, Chen & Saad 2017, "Fast estimation of tr(f(A)) via stochastic Lanczos quadrature"; of networks: Ghorbani
et al. 2019, "An investigation into neural net optimization via Hessian eigenvalue density".
"""

from dataclasses import dataclass

import numpy as np
import scipy

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Band:
    """A curve and its interval: of the mean over probes, as Student's t says. Each float64 (points,).

    One probe says nothing of its uncertainty: low and high are NaN.
    """

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True)
class SpectralDensity:
    """How the eigenvalues of a matrix are distributed, as the mean over probes of discrete distributions.

    nodes, weights: float64 (probes, steps), as `lanczos.Quadrature` has them of random start vectors.
    """

    nodes: np.ndarray
    weights: np.ndarray

    @property
    def bounds(self) -> tuple[float, float]:
        """The smallest and the largest node: within the spectrum, near its ends."""
        return float(self.nodes.min()), float(self.nodes.max())

    def cumulative(self, at: np.ndarray) -> Band:
        """The share of eigenvalues that are at most each of `at`, (points,): in [0, 1]."""
        band = _band(np.einsum("ps,psx->px", self.weights, self.nodes[:, :, None] <= at))
        return Band(band.mean, band.low.clip(0, 1), band.high.clip(0, 1))

    def smoothed(self, at: np.ndarray, width: float) -> Band:
        """The density at each of `at`, (points,), every node widened to a Gaussian of standard deviation `width`."""
        distance = (at - self.nodes[:, :, None]) / width
        kernels = np.exp(-(distance**2) / 2) / (width * np.sqrt(2 * np.pi))
        band = _band(np.einsum("ps,psx->px", self.weights, kernels))
        return Band(band.mean, band.low.clip(0), band.high)

    def mean_of(self, power: int) -> float:
        """The mean of the eigenvalues' powers: 1 is the trace over the size, 2 that of the square."""
        return float((self.weights * self.nodes**power).sum(1).mean())


def _band(curves: np.ndarray) -> Band:
    """curves: (probes, points)."""
    mean, count = curves.mean(0), len(curves)
    if count < 2:
        return Band(mean, np.full_like(mean, np.nan), np.full_like(mean, np.nan))
    half = scipy.stats.t.ppf((1 + CONFIDENCE) / 2, count - 1) * curves.std(0, ddof=1) / np.sqrt(count)
    return Band(mean, mean - half, mean + half)
