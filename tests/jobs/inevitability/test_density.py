"""Estimates of the density of a class: the digits, Gaussian and uniform data of known density, bad data."""

import gzip
import math

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import binom, multivariate_normal
from sklearn.datasets import load_digits

from jobs.common.data.sets import default_folder
from jobs.inevitability.bounds.cube import CubeBound
from jobs.inevitability.ceilings.density_params import BitsPerDimension
from jobs.inevitability.density.estimate import DensityEstimate, Images, estimate_of
from jobs.inevitability.density.gaussian import gaussian
from jobs.inevitability.density.likelihood import from_likelihood, gaussian_likelihood
from jobs.inevitability.density.neighbours import kth_distances, nearest_neighbours
from jobs.inevitability.density.noise import noise_expanded
from jobs.inevitability.density.quantised import quantised
from service.errors import FieldError, InputError


def digits(label: int) -> Images:
    data = load_digits()
    return np.asarray(data.data[data.target == label] / 16, dtype=np.float64)


# class, log U_c and the epsilon from which on the bound in L2 is useful: k-NN with k = 5, Gaussian, 17 levels
DIGITS = [
    (0, (54.09, 4.02), (117.73, 6.03), (176.14, 7.41)),
    (1, (63.52, 4.38), (110.86, 5.84), (176.12, 7.41)),
    (2, (45.50, 3.67), (108.31, 5.77), (176.15, 7.41)),
]


@pytest.mark.parametrize("label, neighbours, normal, grid", DIGITS)
def test_digits(label: int, neighbours: tuple, normal: tuple, grid: tuple) -> None:
    images = digits(label)
    estimates = [nearest_neighbours(images, k=5), gaussian(images, step=1 / 16), quantised(images, levels=17)[0]]
    for estimate, (log_density, first) in zip(estimates, (neighbours, normal, grid), strict=True):
        assert estimate.kind == "estimate" and estimate.dimension == 64
        assert estimate.log_density == pytest.approx(log_density, abs=0.0051)
        bound = CubeBound(n=64, log_density=estimate.log_density)
        assert bound.first_useful == pytest.approx(first, abs=0.0051) and bound.diameter == 8
    # of all of them none contradicts what is certain
    assert gaussian_likelihood(images, seed=0, levels=17).log_density < quantised(images, levels=17)[1].log_density


def test_a_gaussian_of_known_width() -> None:
    # isotropic with sigma 0.1: -n log(0.1 sqrt(2 pi))
    assert -784 * math.log(0.1 * math.sqrt(2 * math.pi)) == pytest.approx(1084.779, abs=5e-4)
    draws = np.random.default_rng(0)
    images = np.clip(0.5 + 0.1 * draws.standard_normal((20_000, 10)), 0, 1)
    exact = -10 * math.log(0.1 * math.sqrt(2 * math.pi))
    assert gaussian(images).log_density == pytest.approx(exact, abs=0.1)
    # the mean of the logarithm of the density is n / 2 below its peak: what a likelihood can know at most
    assert gaussian_likelihood(images, seed=0, levels=256).log_density == pytest.approx(exact - 5, abs=0.2)


def test_gaussian_is_the_density_of_the_fit_at_its_mean() -> None:
    images = np.random.default_rng(1).random((50, 6))
    fit = multivariate_normal(images.mean(0), np.cov(images, rowvar=False))
    assert gaussian(images).log_density == pytest.approx(float(fit.logpdf(images.mean(0))), rel=1e-12)
    covariance = 0.7 * np.cov(images, rowvar=False) + 0.3 * np.diag(images.var(0, ddof=1)) + np.eye(6) * 0.1**2 / 12
    fit = multivariate_normal(images.mean(0), covariance)
    value = gaussian(images, step=0.1, shrinkage=0.3)
    assert value.log_density == pytest.approx(float(fit.logpdf(images.mean(0))), rel=1e-12)
    assert "step 0.1" in value.setting and "shrinkage 0.3" in value.setting


def test_pixels_that_never_change() -> None:
    images = np.random.default_rng(2).random((50, 6))
    padded = np.concatenate([images, np.full((50, 2), 0.25)], axis=1)
    value = gaussian(padded)
    assert value.dimension == 6 and value.log_density == pytest.approx(gaussian(images).log_density, rel=1e-12)
    assert value.notes == ("2 of 8 pixels are the same in all images: they are dropped, as they have no density",)
    assert value.dropped == ((6, 0.25), (7, 0.25))
    kept = gaussian(padded, step=0.1)
    # each is uniform in a cell of the grid, as far as a Gaussian is: -log(sqrt(2 pi) 0.1 / sqrt(12))
    along = -math.log(math.sqrt(2 * math.pi) * 0.1 / math.sqrt(12))
    assert kept.dimension == 8 and kept.dropped == ()
    assert kept.reach == 0.05 and value.reach == 0, "images spread over cells are half a step away at most"
    assert kept.notes[-1] == "it is about images with noise, which are up to 0.05 away in every pixel"
    assert kept.log_density == pytest.approx(gaussian(images, step=0.1).log_density + 2 * along, rel=1e-9)
    nothing = gaussian(np.full((5, 3), 0.5))
    assert nothing.log_density == math.inf and "3 of 3 pixels" in nothing.notes[0]


def test_singular_covariances() -> None:
    few = np.random.default_rng(3).random((4, 10))
    value = gaussian(few)
    assert value.log_density == math.inf
    assert value.notes == ("the covariance has rank 3 of 10: the fit has no density without shrinkage or a step",)
    assert math.isfinite(gaussian(few, shrinkage=0.1).log_density) and math.isfinite(
        gaussian(few, step=0.1).log_density
    )
    verdict = CubeBound(n=10, log_density=value.log_density).verdict()
    assert verdict.kind == "vacuous" and "add uniform noise first" in verdict.sentence


def test_distances_against_all_pairs() -> None:
    images = np.random.default_rng(4).random((1_300, 5))  # more than are in memory at once
    for k in (1, 5):
        assert kth_distances(images, k) == pytest.approx(np.sort(cdist(images, images), axis=1)[:, k], rel=1e-12)


def test_neighbours_of_uniform_points() -> None:
    # density 1: the estimate at a point is near 0, at the densest of many above it
    images = np.random.default_rng(5).random((4_000, 2))
    assert 0 < nearest_neighbours(images, k=50).log_density < 1
    assert "k = 50 of 4000 images" in nearest_neighbours(images, k=50).setting


def test_images_that_are_equal() -> None:
    images = np.random.default_rng(6).random((20, 4))
    images[7] = images[3]
    value = nearest_neighbours(images, k=1)
    assert value.log_density == math.inf
    assert value.notes == ("2 images have 1 others that equal them: on this scale the class has no density",)
    assert math.isfinite(nearest_neighbours(images, k=2).log_density)
    (plain, limit) = quantised(np.round(images * 4) / 4, levels=5)
    assert plain.notes[0] == "2 images are equal" and plain.reach == limit.reach == 0.2
    # a value i / 4 is in the cell from i / 5 to (i + 1) / 5, in which it is spread
    assert all(i / 5 <= i / 4 <= (i + 1) / 5 for i in range(5))
    assert plain.notes[1] == "it is about images with noise, which are up to 0.2 away in every pixel"
    assert plain.log_density == pytest.approx(4 * math.log(5) + math.log(2 / 20), rel=1e-12)
    share = math.exp(limit.log_density - 4 * math.log(5))
    assert limit.kind == "upper bound" and binom.cdf(2, 20, share) == pytest.approx(0.05, rel=1e-9)


def test_images_between_levels_are_counted_by_cells() -> None:
    """Below 1/2 of two levels all are in the first cell: no density is larger than 2."""
    images = np.random.default_rng(9).uniform(0, 0.45, (50, 1))
    for estimate in quantised(images, levels=2):
        assert estimate.log_density == pytest.approx(math.log(2), rel=1e-12)
        assert estimate.notes[0] == "50 images are equal once they are rounded"


@pytest.mark.parametrize("levels", [2, 3, 17, 256])
def test_no_pixel_is_farther_from_a_point_of_its_cell(levels: int) -> None:
    pixels = np.linspace(0, 1, 10_001)

    def farthest(values: np.ndarray) -> float:
        cells = np.rint(values * (levels - 1))
        return float(np.maximum(np.abs(values - cells / levels), np.abs(values - (cells + 1) / levels)).max())

    grid = np.arange(levels) / (levels - 1)
    for values, slack in ((pixels, 2e-4), (grid, 1e-12), (np.float64(np.float32(grid)), 1e-6)):
        images = values[:, None]
        reaches = {quantised(images, levels)[0].reach, gaussian_likelihood(np.tile(images, (4, 1)), 0, levels).reach}
        reaches |= {BitsPerDimension(bits=3.0, levels=levels).estimates(images, 0)[0].reach}
        assert len(reaches) == 1 and farthest(values) == pytest.approx(reaches.pop(), abs=slack)


def test_eight_bits() -> None:
    # MNIST has 784 pixels of 256 levels: 784 log 256 = 4347
    images = np.random.default_rng(7).integers(0, 256, (2, 784)) / 255
    assert quantised(images)[0].log_density == pytest.approx(4347.42 - math.log(2), abs=0.01)


def test_noise() -> None:
    value = noise_expanded(784, 0.1)
    assert value.kind == "upper bound" and value.log_density == pytest.approx(-784 * math.log(0.2), rel=1e-12)
    assert value.reach == 0.2 and value.notes == (
        "it is about images with noise, which are up to 0.2 away in every pixel",
    )
    assert noise_expanded(784, 0.5).log_density == 0  # noise that fills the cube
    # the recipe: intervals of length 2 a in [0, 1]; the density of the mixture is nowhere above 1 / (2 a)
    pixels, amplitude = np.array([0.0, 0.03, 0.5, 1.0]), 0.1
    starts = np.clip(pixels - amplitude, 0, 1 - 2 * amplitude)
    grid = np.linspace(0, 1, 1001)[:, None]
    density = ((grid >= starts) & (grid <= starts + 2 * amplitude)).mean(1) / (2 * amplitude)
    assert density.max() <= math.exp(noise_expanded(1, amplitude).log_density) + 1e-12
    assert (np.abs(pixels - starts) <= 2 * amplitude).all() and (np.abs(pixels - starts - 0.2) <= 2 * amplitude).all()


def test_likelihood() -> None:
    # 8 bits are the uniform density; one bit fewer doubles it in every dimension
    assert from_likelihood(8.0, 784).log_density == 0
    assert from_likelihood(7.0, 784).log_density == pytest.approx(784 * math.log(2), rel=1e-12)
    assert from_likelihood(3.0, 3_072).kind == "lower bound"
    worse = from_likelihood(8.5, 784)
    assert worse.log_density == 0 and "no density has a peak with a logarithm below 0: 0 is taken" in worse.notes[0]
    first = gaussian_likelihood(digits(0), seed=1, levels=17)
    assert (
        first == gaussian_likelihood(digits(0), seed=1, levels=17) != gaussian_likelihood(digits(0), seed=2, levels=17)
    )


@pytest.mark.parametrize(
    "kind, verdict, sentence",
    [
        ("upper bound", "useful", "certain, since log U_c is at most 10"),
        ("lower bound", "vacuous", "certain, since log U_c is at least 10"),
        ("upper bound", "vacuous", "open, since log U_c may be smaller than 10"),
        ("lower bound", "useful", "open, since log U_c may be larger than 10"),
        ("estimate", "useful", "as good as the estimate of log U_c, 10"),
        ("lower bound", "not applicable", "no density would change it"),
    ],
)
def test_conclusions(kind: str, verdict: str, sentence: str) -> None:
    estimate = estimate_of("a method", kind, 10.0, "", 5)  # type: ignore[arg-type]
    assert estimate.conclusion(verdict) == sentence  # type: ignore[arg-type]


def test_bad_data() -> None:
    good = np.random.default_rng(8).random((6, 3))
    for estimator in (nearest_neighbours, gaussian, quantised, lambda images: gaussian_likelihood(images, 0)):
        with pytest.raises(InputError, match=r"pixels must be in \[0, 1\]; they are in \[0, 255\]"):
            estimator(np.array([[0.0, 255.0]] * 8))
        with pytest.raises(InputError, match=r"pixels must be in \[0, 1\]; some are NaN or infinite"):
            estimator(good * math.nan)
        with pytest.raises(InputError, match=r"images of a class must be \(count, n\); their shape is \(6, 3, 1\)"):
            estimator(good[:, :, None])
    with pytest.raises(FieldError, match="images of a class must be at least 7 for this estimate; it is 6"):
        nearest_neighbours(good, k=6)
    with pytest.raises(FieldError, match="images of a class must be at least 1 for this estimate; it is 0"):
        quantised(good[:0])
    with pytest.raises(FieldError, match="k must be at least 1; it is 0"):
        nearest_neighbours(good, k=0)
    with pytest.raises(FieldError, match="step must be above 0 and at most 1; it is 2"):
        gaussian(good, step=2)
    with pytest.raises(FieldError, match="shrinkage must be from 0 to 1; it is -1"):
        gaussian(good, shrinkage=-1)
    with pytest.raises(FieldError, match="levels must be at least 2, the values that a pixel can have; it is 1"):
        quantised(good, levels=1)
    for amplitude in (0.0, 0.6, math.nan):
        with pytest.raises(FieldError, match="amplitude must be above 0 and at most 0.5, the noise that fills"):
            noise_expanded(4, amplitude)
    with pytest.raises(FieldError, match="bits must be a finite number of bits per dimension; it is nan"):
        from_likelihood(math.nan, 4)
    with pytest.raises(FieldError, match="log_density must be at least 0; it is -1"):
        DensityEstimate(method="", kind="estimate", log_density=-1, setting="", dimension=1)


def test_fashion_mnist() -> None:
    """Numbers of another program; where the data are not there, the digits show the same."""
    folder = default_folder() / "usr/share/datasets/fashion-mnist"
    if not folder.is_dir():
        pytest.skip("make data has not been run")
    images = np.frombuffer(gzip.decompress((folder / "train-images-idx3-ubyte.gz").read_bytes())[16:], np.uint8)
    labels = np.frombuffer(gzip.decompress((folder / "train-labels-idx1-ubyte.gz").read_bytes())[8:], np.uint8)
    images = images.reshape(-1, 784)
    for label, log_density, first in ((0, 1635, 22.8), (1, 2645, 29.0), (5, 1667, 23.0)):
        own = images[labels == label] / 255
        estimate = gaussian(own, step=1 / 255)
        assert estimate.log_density == pytest.approx(log_density, abs=0.51)
        assert CubeBound(n=784, log_density=estimate.log_density).first_useful == pytest.approx(first, abs=0.051)
    grid = quantised(images[labels == 5] / 255)[0]
    assert grid.log_density == pytest.approx(4338.7, abs=0.051)
    assert CubeBound(n=784, log_density=grid.log_density).verdict().kind == "vacuous"
