"""Training batches: what an epoch goes through, and that a batch depends on its number alone."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from jobs.common.data.batches import Epochs, permutation
from service.errors import InputError


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 5))
def test_an_epoch_goes_through_full_batches_without_repeats(count: int, batch: int, epoch: int) -> None:
    if batch > count:
        with pytest.raises(InputError, match=f"{count} instances does not fill one batch of {batch}"):
            Epochs(count, batch, lambda epoch: epoch)
        return
    epochs = Epochs(count, batch, lambda epoch: epoch)
    seen = torch.cat([epochs.indices(epoch * epochs.steps + step) for step in range(epochs.steps)])
    assert len(seen) == len(seen.unique()) == count - count % batch
    assert 0 <= int(seen.min()) <= int(seen.max()) < count


def test_a_batch_depends_on_its_number_alone() -> None:
    forwards = Epochs(10, 3, lambda epoch: 100 + epoch)
    ordered = [forwards.indices(step) for step in range(9)]
    for step in (8, 0, 4, 3, 8):
        assert torch.equal(Epochs(10, 3, lambda epoch: 100 + epoch).indices(step), ordered[step])
        assert torch.equal(forwards.indices(step), ordered[step])
    assert not torch.equal(torch.cat(ordered[:3]), torch.cat(ordered[3:6])), "each epoch has an order of its own"
    assert not torch.equal(Epochs(10, 3, lambda epoch: epoch).indices(0), ordered[0])


def test_permutation_leaves_the_global_stream_alone() -> None:
    state = torch.get_rng_state()
    assert torch.equal(permutation(50, 1), permutation(50, 1))
    assert sorted(permutation(50, 2).tolist()) == list(range(50))
    assert torch.equal(torch.get_rng_state(), state)
