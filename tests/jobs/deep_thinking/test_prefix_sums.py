"""Prefix sums against the definition, bit by bit."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.deep_thinking.problems import problem
from service.errors import InputError

PREFIX = problem("prefix_sums")


@settings(deadline=None, max_examples=50)
@given(size=st.integers(1, 80), seed=st.integers(0, 2**63 - 1))
def test_targets_are_running_parities(size: int, seed: int) -> None:
    inputs, targets = PREFIX.sample(size, min(4, 2**size), seed)
    assert inputs.dtype == torch.float32 and targets.dtype == torch.int64
    for bits, answer in zip(inputs[:, 0], targets, strict=True):
        parity = 0
        for bit, right in zip(bits.tolist(), answer.tolist(), strict=True):
            assert bit in (-0.5, 0.5)
            parity ^= bit > 0
            assert parity == right
    assert PREFIX.verify(inputs, targets).all()


def test_one_wrong_bit_is_noticed() -> None:
    inputs, targets = PREFIX.sample(32, 32, 0)
    targets[torch.arange(32), torch.arange(32)] ^= 1
    assert not PREFIX.verify(inputs, targets).any()


def test_short_strings_are_distinct_and_all_strings_can_come() -> None:
    inputs, _ = PREFIX.sample(10, 1024, 5)
    assert len(torch.unique(inputs, dim=0)) == 1024
    inputs, _ = PREFIX.sample(3, 20, 5)
    assert len(inputs) == 20, "more than there are: with repeats"


def test_bits_are_fair_and_depend_on_the_seed_alone() -> None:
    inputs, _ = PREFIX.sample(64, 2000, 1)
    share = (inputs > 0).double().mean(0)
    assert ((share - 0.5).abs() < 5 * 0.5 / np.sqrt(2000)).all(), "five standard deviations at every place"
    assert torch.equal(inputs, PREFIX.sample(64, 2000, 1)[0])
    assert not torch.equal(inputs, PREFIX.sample(64, 2000, 2)[0])


@pytest.mark.parametrize("size", [0, -1, 2**21])
def test_sizes_that_make_no_sense(size: int) -> None:
    with pytest.raises(InputError, match="size must be from 1 to .* bits"):
        PREFIX.sample(size, 1, 0)


def test_values_that_are_not_bits() -> None:
    inputs = torch.tensor([[[-0.5, 0.5]], [[0.0, 1.0]]])
    fine, sentence = PREFIX.check_inputs(inputs)
    assert fine is None and sentence is not None and "-0.5 (0) or 0.5 (1)" in sentence


def test_picture() -> None:
    inputs, targets = PREFIX.sample(8, 1, 0)
    assert PREFIX.picture(inputs[0], None).shape == (12, 96, 3)
    assert PREFIX.picture(inputs[0], targets[0]).shape == (24, 96, 3)
