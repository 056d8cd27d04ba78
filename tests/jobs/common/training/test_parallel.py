"""Two processes that share batches, against one process that has them whole. Processes of torch's own, without Ray."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from jobs.common.training import parallel
from service.errors import InputError
from tests.ranks import answers

BATCHES = (6, 7)  # divided evenly, and not


def network() -> nn.Sequential:
    """With batch statistics over images and over vectors, tracked by momentum and by counting."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 3, 3),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(3 * 9, 4),
        nn.BatchNorm1d(4, momentum=None, affine=False),
    ).double()


def train(rows: int, steps: int = 3) -> dict[str, Any]:
    """Train on global batches of so many rows, keeping the gradients of the inputs. On as many ranks as there are."""
    trained = parallel.convert_batch_norm(network())
    optimizer = torch.optim.SGD(trained.parameters(), lr=0.1)
    stream = torch.Generator().manual_seed(rows)
    kept: list[Tensor] = []
    losses: list[float] = []
    for _ in range(steps):
        whole = 5 + torch.randn(rows, 2, 5, 5, generator=stream, dtype=torch.float64)
        labels = parallel.share(torch.randint(0, 4, (rows,), generator=stream))
        inputs = parallel.share(whole).requires_grad_()
        mean = functional.cross_entropy(trained(inputs), labels)
        loss = parallel.part_of_mean(mean, len(inputs), rows)
        optimizer.zero_grad()
        loss.backward()
        assert inputs.grad is not None
        kept.append(parallel.gather(inputs.grad))
        losses.append(parallel.total(loss.detach()).item())
        parallel.sum_gradients(trained.parameters())
        optimizer.step()
    trained.eval()
    with torch.no_grad():
        answer = trained(whole)
    return {"state": trained.state_dict(), "inputs": kept, "losses": losses, "answer": answer}


def on_each_rank() -> dict[str, Any]:
    """What a process of the group does; rank 1 answers, so that rank 0 is not trusted alone."""
    rank = parallel.rank()
    found: dict[str, Any] = {f"train {rows}": train(rows) for rows in BATCHES}
    found["who"] = (parallel.rank(), parallel.world())
    found["share"] = parallel.share(torch.arange(7)).tolist()
    found["gather"] = [
        parallel.gather(parallel.share(torch.arange(7))).tolist(),
        parallel.gather(torch.full((rank, 2), True)).tolist(),
    ]
    found["sentences"] = [
        parallel.sentences(["one", "ä"][:rank]),
        parallel.sentences([f"of {rank}", "of both"]),
        parallel.sentences([]),
    ]
    found["half"] = half_precision()
    found["second"] = second_derivative()
    try:
        parallel.share(torch.zeros(1))
    except InputError as error:
        found["too small"] = error.message
    return found


def half_precision() -> tuple[Tensor, torch.dtype]:
    """Batch statistics of bfloat16 inputs, and the type of the answer."""
    layer = parallel.convert_batch_norm(nn.BatchNorm1d(1))
    answer = layer(parallel.share(torch.arange(6.0).view(6, 1)).bfloat16())
    return layer.get_buffer("running_var"), answer.dtype


def second_derivative() -> Tensor:
    """The gradient of the squared norm of a gradient, through a sum over ranks."""
    inputs = parallel.share(torch.arange(1.0, 5.0)).requires_grad_()
    loss = parallel.total(inputs.square().sum()) ** 2 / parallel.world()
    (gradient,) = torch.autograd.grad(loss, inputs, create_graph=True)
    (second,) = torch.autograd.grad(gradient.square().sum(), inputs)
    return parallel.gather(second)


@pytest.fixture(scope="module")
def two() -> list[dict[str, Any]]:
    """What two processes found, by rank."""
    return answers(on_each_rank)


@pytest.mark.parametrize("rows", BATCHES)
def test_two_processes_train_as_one_does(two: list[dict[str, Any]], rows: int) -> None:
    one = train(rows)
    assert not any(isinstance(each, parallel.SyncedBatchNorm) for each in parallel.convert_batch_norm(network()))
    for rank in (0, 1):
        torch.testing.assert_close(two[rank][f"train {rows}"], one, rtol=1e-10, atol=1e-12)


def test_shares_and_gathers(two: list[dict[str, Any]]) -> None:
    assert [two[rank]["who"] for rank in (0, 1)] == [(0, 2), (1, 2)]
    assert [two[rank]["share"] for rank in (0, 1)] == [[0, 1, 2, 3], [4, 5, 6]]
    for rank in (0, 1):
        assert two[rank]["gather"] == [list(range(7)), [[True, True]]]
        assert two[rank]["sentences"] == [["one"], ["of 0", "of both", "of 1", "of both"], []]
        assert two[rank]["too small"] == "a batch of 1 cannot be shared by 2 workers: each needs a row"


def test_half_precision_has_statistics_in_full(two: list[dict[str, Any]]) -> None:
    for rank in (0, 1):
        variance, answered = two[rank]["half"]
        assert answered == torch.bfloat16
        torch.testing.assert_close(variance, torch.tensor([0.9 + 0.1 * 3.5]))  # of 0 to 5, unbiased


def test_second_derivative(two: list[dict[str, Any]]) -> None:
    torch.testing.assert_close(two[0]["second"], two[1]["second"])
    torch.testing.assert_close(two[0]["second"], second_derivative())


def test_alone_everything_is_the_identity() -> None:
    values = torch.randn(3, 2, requires_grad=True)
    assert (parallel.rank(), parallel.world()) == (0, 1)
    assert parallel.share(values).equal(values)
    assert parallel.gather(values) is values and parallel.total(values) is values
    assert parallel.part_of_mean(values, 3, 3) is values
    assert parallel.sentences(["one", "two"]) == ["one", "two"]
    layer = nn.Linear(2, 1)
    layer(values).sum().backward()
    before = [parameter.grad.clone() for parameter in layer.parameters() if parameter.grad is not None]
    parallel.sum_gradients(layer.parameters())
    assert all(
        now.grad is not None and now.grad.equal(old) for now, old in zip(layer.parameters(), before, strict=True)
    )


def test_synced_batch_norm_alone_is_batch_norm() -> None:
    inputs = torch.randn(4, 3, 2, 2)
    synced, plain = parallel.SyncedBatchNorm(3), nn.BatchNorm2d(3)
    assert synced(inputs).equal(plain(inputs))
    with pytest.raises(ValueError, match=r"expects inputs of shape \(batch, 3, ...\), not \(4, 2, 2\)"):
        synced(torch.zeros(4, 2, 2))
