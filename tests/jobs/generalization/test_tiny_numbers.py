"""Numbers below float32's normal range, with which CPUs compute slowly."""

import pytest
import torch

from jobs.generalization.minefield.search import tiny_as_zero


def test_tiny_numbers_are_zero_inside_alone() -> None:
    if not torch.set_flush_denormal(False):
        pytest.skip("this processor has no such mode")
    small = torch.full((64,), 1e-30)
    assert bool((small * 1e-10 > 0).all())
    with tiny_as_zero():
        assert not (small * 1e-10).any() and bool((small * 1e-7 > 0).all())
    assert bool((small * 1e-10 > 0).all())
    with pytest.raises(KeyError), tiny_as_zero():
        raise KeyError
    assert bool((small * 1e-10 > 0).all())
