"""Shares of the space: classifiers whose shares are known."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.stats import binom, binomtest, norm
from torch import Tensor

from jobs.inevitability.bounds.generative import GenerativeBound
from jobs.inevitability.bounds.shares import ClassShare, class_shares, random_points
from service.errors import FieldError, InputError


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def half_space(level: float) -> Callable[[Tensor], Tensor]:
    """Class 1 where the first pixel is beyond a level; class 2 of three is never predicted."""

    def classify(points: Tensor) -> Tensor:
        first = points.flatten(1)[:, 0] - level
        return torch.stack([-first, first, torch.full_like(first, -9.0)], dim=1)

    return classify


def test_half_spaces_of_the_cube() -> None:
    shares = class_shares(half_space(0.9), (1, 3, 3), 4_000, generator())
    for share, volume in zip(shares, (0.9, 0.1, 0.0), strict=True):
        low, high = share.interval
        assert low <= volume <= high and share.samples == 4_000
    assert shares[2].hits == 0 and shares[2].upper == pytest.approx(1 - 0.05 ** (1 / 4_000), rel=1e-9)


def test_half_spaces_of_the_sphere() -> None:
    # Archimedes: the height of a uniform point of the ordinary sphere is uniform
    shares = class_shares(half_space(0.5), (3,), 4_000, generator(), space="sphere")
    low, high = shares[1].interval
    assert low <= 0.25 <= high


def test_half_spaces_of_latent_vectors() -> None:
    # the shares of generated data, and the bound that rests on them: for half-spaces it is exact
    shares = class_shares(half_space(1.0), (4,), 4_000, generator(), space="latent")
    assert binomtest(shares[1].hits, 4_000, norm.cdf(-1)).pvalue > 1e-3
    bound = GenerativeBound(lipschitz=1.0, shares=tuple(share.estimate for share in shares))
    away = np.abs(random_points(4_000, (4,), generator(1), "latent")[:, 0].numpy() - 1.0) > 0.5
    assert float(away.mean()) == pytest.approx(float(bound.ceiling(0.5)), abs=0.03)


def test_points() -> None:
    cube = random_points(500, (2, 3, 3), generator())
    assert cube.shape == (500, 2, 3, 3) and cube.dtype == torch.float32
    assert float(cube.min()) >= 0 and float(cube.max()) < 1 and float(cube.mean()) == pytest.approx(0.5, abs=0.02)
    sphere = random_points(500, (2, 3, 3), generator(), "sphere")
    assert torch.allclose(sphere.flatten(1).norm(dim=1), torch.ones(500), atol=1e-6)


def test_the_same_seed_gives_the_same_counts() -> None:
    first, again = (class_shares(half_space(0.3), (1, 2, 2), 300, generator(7), batch=64) for _ in range(2))
    assert first == again != class_shares(half_space(0.3), (1, 2, 2), 300, generator(8), batch=64)


@pytest.mark.parametrize(
    "hits, sentence",
    [
        (0, "none of 1000 random points has the label: at most 0.00299 of the space; the theorem's hypothesis"),
        (100, "[0.08211, 0.1203]; the theorem's hypothesis, at most 0.5, holds"),
        (500, "whether the theorem's hypothesis, at most 0.5, holds is open"),
        (700, "the theorem's hypothesis, at most 0.5, fails, and the sharp form alone applies"),
    ],
)
def test_sentences(hits: int, sentence: str) -> None:
    assert sentence in ClassShare(hits, 1_000).sentence


def test_upper_is_the_end_at_which_so_few_hits_are_unlikely() -> None:
    assert binom.cdf(30, 400, ClassShare(30, 400).upper) == pytest.approx(0.05, rel=1e-9)
    assert ClassShare(400, 400).upper == 1


def test_bad_input() -> None:
    with pytest.raises(FieldError, match="samples must be at least 1; it is 0"):
        class_shares(half_space(0.5), (2,), 0, generator())
    with pytest.raises(FieldError, match="batch must be at least 1; it is 0"):
        class_shares(half_space(0.5), (2,), 10, generator(), batch=0)
    with pytest.raises(FieldError, match="hits must be from 0 to 5, the number of samples; it is 6"):
        ClassShare(6, 5)
    with pytest.raises(FieldError, match="samples must be at least 1; it is 0"):
        ClassShare(0, 0)
    with pytest.raises(InputError, match=r"the classifier must give \(batch, classes\); its output is \(10,\)"):
        class_shares(lambda points: points[:, 0], (2,), 10, generator())
    with pytest.raises(InputError, match="the classifier must give finite logits"):
        class_shares(lambda points: points / 0, (2,), 10, generator())
