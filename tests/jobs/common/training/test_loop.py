"""The loop by itself: least squares with dropout and momentum, killed, shared, accumulated, stopped and diverging."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from jobs.common.training import loop, parallel
from jobs.common.training.averages import Term
from jobs.common.training.engine import Batch, Engine, EngineParams
from jobs.common.training.optimizers import OptimizerParams
from jobs.common.training.schedules import StepDecay
from service.errors import FieldError, RunFailedError
from service.run import Run
from service.store import open_store
from tests.jobs.killed import KilledAtReport
from tests.ranks import answers

ROWS, WIDTH = 6, 4
RATES = OptimizerParams(kind="sgd", learning_rate=0.05, momentum=0.9, clip=1.0)


class Rows:
    """Batch number `index` depends on that alone."""

    def __init__(self, rows: int = ROWS) -> None:
        self.rows = rows

    def batch(self, index: int) -> Batch:
        stream = torch.Generator().manual_seed(index)
        inputs = torch.randn(self.rows, WIDTH, generator=stream)
        return inputs, inputs.sum(1, keepdim=True)


class LeastSquares(loop.Step):
    """Counts its passes; validates with what it was given; may end training or break the weights."""

    def __init__(
        self, engine: Engine, scores: Callable[[int], float] = float, stop_at: int = 0, break_at: int = 0
    ) -> None:
        super().__init__(engine)
        self.scores, self.stop_at, self.break_at = scores, stop_at, break_at
        self.passes = 0

    def backward(self, batch: Batch, update: int) -> dict[str, Term]:
        self.passes += 1
        inputs, targets = map(parallel.share, batch)
        errors = self.engine(inputs) - targets
        loss = parallel.part_of_mean(errors.square().mean(), len(inputs), len(batch[0]))
        if update + 1 == self.break_at:
            loss = loss * torch.nan
        self.engine.scaled(loss).backward()  # type: ignore[no-untyped-call]
        near = Term((errors.detach().abs() < 0.5).sum(), len(batch[0]) * self.engine.accumulate)
        return {"loss": Term(self.engine.share(loss.detach()), 1), "near": near}

    def after(self, progress: loop.Progress) -> bool:
        return progress.updates == self.stop_at

    def validate(self, progress: loop.Progress) -> dict[str, float]:
        assert not self.engine.network.training
        return {"score": self.scores(progress.updates), "passes": self.passes}

    def state(self) -> dict[str, Any]:
        return {"passes": self.passes}

    def restore(self, state: dict[str, Any]) -> None:
        self.passes = state["passes"]


def network(seed: int = 0, dropout: float = 0.3) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(WIDTH, 8), nn.Dropout(dropout), nn.BatchNorm1d(8), nn.Linear(8, 1))


def plan(**changes: Any) -> loop.Plan:
    told: dict[str, Any] = {"updates": 10, "rates": RATES, "report_every": 3, "seed": lambda update: 100 + update}
    return loop.Plan(**told | changes)


def trained(
    net: nn.Module, run: Run | None, accumulate: int = 1, rows: int = ROWS, step: Any = None, **changes: Any
) -> LeastSquares:
    made = LeastSquares(Engine(net, EngineParams(), accumulate), **step or {})
    optimizer = RATES.build([(1.0, list(net.parameters()))])
    loop.train(made, optimizer, Rows(rows), plan(**changes), run)
    return made


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(*pair) for pair in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("reports", [1, 2, 3, 4])
def test_killed_anywhere_it_goes_on_to_the_same_weights(make_run: Any, reports: int, before: bool) -> None:
    """Also from the last checkpoint, after which nothing but the best weights is left to take."""
    options: dict[str, Any] = {"best_by": "score", "step": {"scores": lambda updates: -abs(updates - 6)}}
    undisturbed, run = network(), make_run("undisturbed")
    counted = trained(undisturbed, run, **options)
    killed = make_run("killed", kind=KilledAtReport)
    killed.reports, killed.before = reports, before
    with pytest.raises(KeyboardInterrupt):
        trained(network(), killed, **options)
    begun = reports > 1 or not before  # before the first checkpoint it starts from the same weights
    resumed, again = network(seed=int(begun)), make_run("killed")
    assert trained(resumed, again, **options).passes == counted.passes == 10
    assert same(resumed, undisturbed) and again.rows == run.rows
    assert [row["step"] for row in run.rows] == [3, 6, 9, 10]


def test_without_a_handle_it_trains_the_same(make_run: Any) -> None:
    alone, logged = network(), network()
    state = torch.get_rng_state()
    trained(alone, None)
    assert torch.equal(torch.get_rng_state(), state), "the draws of others are not touched"
    trained(logged, make_run())
    assert same(alone, logged) and not alone.training


def test_the_best_weights_are_kept_and_the_first_of_equals(make_run: Any) -> None:
    kept, short = network(), network()
    trained(kept, make_run(), best_by="score", step={"scores": lambda updates: min(updates, 6)})
    trained(short, None, updates=6)
    assert same(kept, short)
    last, long = network(), network()
    trained(last, None, best_by="score", step={"scores": lambda updates: float("nan")})
    trained(long, None)
    assert same(last, long), "a score that is not a number is never the best"


def test_a_study_ends_training(make_run: Any) -> None:
    run, net, short = make_run(), network(), network()
    trained(net, run, step={"stop_at": 4})
    assert [row["step"] for row in run.rows] == [3, 4]
    trained(short, None, updates=4)
    assert same(net, short)
    assert trained(network(), make_run(), step={"stop_at": 4}).passes == 4, "a resumed one stays ended"


def test_a_loss_that_is_not_finite_is_seen_at_the_next_report(make_run: Any) -> None:
    run = make_run()
    with pytest.raises(RunFailedError, match="loss is nan: it stopped being finite between weight updates 4 and 6"):
        trained(network(), run, step={"break_at": 5})
    assert [row["step"] for row in run.rows] == [3]


def test_averages_are_those_of_the_updates_since_the_last_report(make_run: Any) -> None:
    every, some = make_run("every"), make_run("some")
    trained(network(), every, report_every=1)
    trained(network(), some, report_every=4, prefix="x_", first_step=20, updates_per_step=2)
    losses = [row["train_loss"] for row in every.rows]
    assert [row["step"] for row in some.rows] == [22, 24, 25]
    expected = [sum(losses[:4]) / 4, sum(losses[4:8]) / 4, sum(losses[8:]) / 2]
    assert [row["x_train_loss"] for row in some.rows] == expected
    assert all(0 <= row["train_near"] <= 1 for row in every.rows)


def test_accumulation_averages_its_passes(make_run: Any) -> None:
    """Three passes of six rows are an update by their mean; what is averaged is of all of them."""
    ones, three = nn.Linear(WIDTH, 1), nn.Linear(WIDTH, 1)  # no batch statistics, which are those of a pass
    three.load_state_dict(ones.state_dict())

    class Together(Rows):
        def batch(self, index: int) -> Batch:
            parts = [Rows().batch(3 * index + part) for part in range(3)]
            return tuple(torch.cat(each) for each in zip(*parts, strict=True))

    whole = LeastSquares(Engine(ones, EngineParams()))
    run = make_run("whole")
    loop.train(whole, RATES.build([(1.0, list(ones.parameters()))]), Together(), plan(), run)
    parts = make_run("parts")
    assert trained(three, parts, accumulate=3).passes == 30
    torch.testing.assert_close(dict(three.state_dict()), dict(ones.state_dict()))
    for name in ("train_loss", "train_near"):
        assert [row[name] for row in parts.rows] == pytest.approx([row[name] for row in run.rows], rel=1e-5)


def test_a_tick_of_the_rates_may_be_several_updates() -> None:
    rates = OptimizerParams(learning_rate=1.0, decay=StepDecay(milestones=(2,), factor=0.5))
    ticking = plan(rates=rates, updates_per_tick=3)
    assert [ticking.rate(update) for update in range(9)] == [1.0] * 6 + [0.5] * 3


class Repeatable(LeastSquares):
    """May be asked for an update again."""

    repeatable = True


LBFGS = OptimizerParams(kind="lbfgs", learning_rate=0.9, weight_decay=0.0)


def test_lbfgs_solves_least_squares_with_what_torch_has(make_run: Any) -> None:
    """Batches of its own at each update, two passes for each: as torch's own optimizer with a closure of the mean."""
    ours, theirs = nn.Linear(WIDTH, 1), nn.Linear(WIDTH, 1)
    theirs.load_state_dict(ours.state_dict())
    step = Repeatable(Engine(ours, EngineParams(), accumulate=2))
    run = make_run()
    loop.train(step, LBFGS.build([(1.0, list(ours.parameters()))]), Rows(), plan(updates=3, rates=LBFGS), run)
    optimizer, evaluations = torch.optim.LBFGS(theirs.parameters(), 0.9), []
    for update in range(3):
        batches = [Rows().batch(2 * update + part) for part in range(2)]
        inputs, targets = (torch.cat(each) for each in zip(*batches, strict=True))

        def closure(inputs: Tensor = inputs, targets: Tensor = targets) -> Tensor:
            optimizer.zero_grad()
            loss = (theirs(inputs) - targets).square().mean()
            loss.backward()  # type: ignore[no-untyped-call]
            evaluations.append(loss.item())
            return loss.detach()

        optimizer.step(closure)  # type: ignore[arg-type]
    torch.testing.assert_close(dict(ours.state_dict()), dict(theirs.state_dict()), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(ours.weight, torch.ones(1, WIDTH), rtol=1e-2, atol=1e-2)  # targets are sums
    assert run.rows[0]["train_loss"] < max(evaluations) and step.passes >= 2 * 3


def test_lbfgs_killed_goes_on_to_the_same_weights(make_run: Any) -> None:
    """With dropout, of which every evaluation of an update draws the same."""

    def train(net: nn.Module, run: Run) -> None:
        step = Repeatable(Engine(net, EngineParams()))
        loop.train(step, LBFGS.build([(1.0, list(net.parameters()))]), Rows(), plan(rates=LBFGS, seed=seeds), run)

    def seeds(update: int) -> int | None:
        return None if update % 3 else 100 + update

    undisturbed, resumed = network(), network(seed=1)
    train(undisturbed, make_run("undisturbed"))
    killed = make_run("killed", kind=KilledAtReport)
    killed.reports, killed.before = 2, False
    with pytest.raises(KeyboardInterrupt):
        train(network(), killed)
    train(resumed, make_run("killed"))
    assert same(resumed, undisturbed)


def test_lbfgs_is_refused_where_updates_cannot_be_repeated() -> None:
    net = network()
    with pytest.raises(FieldError, match="optimizer.kind must be another one where updates cannot be repeated"):
        loop.train(
            LeastSquares(Engine(net, EngineParams())), LBFGS.build([(1.0, list(net.parameters()))]), Rows(), plan()
        )


class Waits(TorchDispatchMode):
    """Counts numbers that are read from tensors: on a GPU each would wait for all that is under way."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        Waits.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **kwargs or {})


def test_no_number_is_read_between_reports() -> None:
    Waits.count = 0
    with Waits():
        trained(network(), None, updates=9, report_every=9)
    assert Waits.count == 0  # the averages are read all at once, as a list
    with Waits():
        torch.ones(()).item()
    assert Waits.count == 1


# ---- two processes --------------------------------------------------------------------------------------------------


def shared(folder: str) -> dict[str, Any]:
    """Batches of seven rows, 4 and 3 of them on two ranks."""
    net, run = network(dropout=0.0), Run(open_store(folder) / f"{parallel.rank()} of {parallel.world()}", 0)
    trained(net, run, rows=7)
    weights: dict[str, Tensor] = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    return {"weights": weights, "loss": [row["train_loss"] for row in run.rows], "near": run.metrics["train_near"]}


def test_two_processes_train_as_one_does(tmp_path: Any) -> None:
    one = shared(str(tmp_path))
    for each in answers(shared, str(tmp_path)):
        torch.testing.assert_close(each["weights"], one["weights"], rtol=1e-4, atol=1e-5)
        assert each["loss"] == pytest.approx(one["loss"], rel=1e-4)
        assert each["near"] == pytest.approx(one["near"])
