"""Numbers below float32's normal range, with which CPUs compute slowly."""

import pytest
import torch
from torch import nn

from jobs.common.training import loop
from jobs.common.training.averages import Term
from jobs.common.training.engine import Batch, Engine, EngineParams, tiny_as_zero
from jobs.common.training.optimizers import OptimizerParams

SMALL = torch.full((64,), 1e-30)


def tiny_are_zero() -> bool:
    return not (SMALL * 1e-10).any()


@pytest.fixture(autouse=True)
def _with_such_a_mode() -> None:
    if not torch.set_flush_denormal(False):
        pytest.skip("this processor has no such mode")


def test_tiny_numbers_are_zero_inside_alone() -> None:
    with tiny_as_zero():
        assert tiny_are_zero() and bool((SMALL * 1e-7 > 0).all())
    assert not tiny_are_zero()
    with pytest.raises(KeyError), tiny_as_zero():
        raise KeyError
    assert not tiny_are_zero()
    with tiny_as_zero():
        with tiny_as_zero():
            pass
        assert tiny_are_zero(), "as it was before"
    assert not tiny_are_zero()


def test_threads_that_begin_inside_do_not_keep_it() -> None:
    """Else what a large tensor holds afterwards would hang on when torch began them."""
    large, threads = torch.full((1 << 20,), 1e-30), torch.get_num_threads()
    torch.set_num_threads(threads + 2)
    try:
        with tiny_as_zero():
            large.mul(2.0)
        assert bool((large * 1e-10 > 0).all())
    finally:
        torch.set_num_threads(threads)


class TinySlopes(loop.Step):
    """Its gradients are below the normal range."""

    def backward(self, batch: Batch, update: int) -> dict[str, Term]:
        loss = (self.engine(SMALL) * 1e-10).sum()
        self.engine.scaled(loss).backward()  # type: ignore[no-untyped-call]
        return {"loss": Term(loss.detach(), 1)}

    def validate(self, progress: loop.Progress) -> dict[str, float]:
        assert not tiny_are_zero(), "for updates alone"
        return {}


class Nothing:
    def batch(self, index: int) -> Batch:
        return ()


@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_training_keeps_no_tiny_moments(kind: str) -> None:
    net = nn.Linear(64, 3)
    rates = OptimizerParams.model_validate({"kind": kind, "weight_decay": 0.0})
    optimizer = rates.build([(1.0, [*net.parameters()][:1])])
    loop.train(TinySlopes(Engine(net, EngineParams())), optimizer, Nothing(), loop.Plan(2, rates, 1, lambda _: None))
    moments = [each for each in optimizer.state[net.weight].values() if each.shape == net.weight.shape]
    assert moments and not any(each.any() for each in moments)
