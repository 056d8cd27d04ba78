"""How epsilon scales with the resolution: norms of replicated images, and of averages over blocks."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.inevitability.bounds.resolution import average, equivalent, replicate, scale
from service.errors import FieldError


def norm(values: torch.Tensor, q: float) -> float:
    return float(torch.linalg.vector_norm(values.double().flatten(), ord=q))


def test_factors() -> None:
    assert [scale(4, q) for q in (0, 1, 2, math.inf)] == [16, 16, 4, 1]
    assert scale(3, 4) == pytest.approx(math.sqrt(3)) and scale(1, 0.5) == 1


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 4), st.sampled_from([0, 0.5, 1, 1.5, 2, 3, math.inf]), st.integers(0, 10**6))
def test_replication_scales_norms_and_averages_shrink_them_as_much(b: int, q: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    small = torch.randn(1, 2, 3, 5, generator=generator)
    large = replicate(small, b)
    assert large.shape == (1, 2, 3 * b, 5 * b) and torch.allclose(average(large, b), small, atol=1e-6)
    assert norm(large, q) == pytest.approx(scale(b, q) * norm(small, q), rel=1e-5)
    change = torch.randn(1, 2, 3 * b, 5 * b, generator=generator)
    if equivalent(q):
        assert norm(average(change, b), q) * scale(b, q) <= norm(change, q) * (1 + 1e-5)


def test_below_one_an_average_may_be_longer() -> None:
    """One pixel that changes in every block: the second half of the theorem fails in L0 and below L1."""
    change = torch.zeros(1, 1, 4, 4)
    change[..., ::2, ::2] = 1
    for q in (0, 0.5):
        assert not equivalent(q) and norm(average(change, 2), q) * scale(2, q) > norm(change, q)


@pytest.mark.parametrize("b", [0, -1, 1.5, True])
def test_bad_factors(b: float) -> None:
    with pytest.raises(FieldError, match="b must be a whole number of at least 1, as pixels are replicated; it is"):
        scale(b, 2)  # type: ignore[arg-type]


def test_bad_input() -> None:
    with pytest.raises(FieldError, match="b must divide 4 and 6, the height and width; it is 4"):
        average(torch.zeros(1, 1, 4, 6), 4)
    with pytest.raises(FieldError, match="q must be at least 0, infinity included; it is -1"):
        scale(2, -1)
    with pytest.raises(FieldError, match="q must be at least 0"):
        scale(2, math.nan)
