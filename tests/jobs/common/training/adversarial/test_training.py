"""The loop: killed and resumed, stopped by overfitting, refused, shared by two processes; and what it counts."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from jobs.common.attacks import PGD, Ball
from jobs.common.data.augmentation import AugmentationParams
from jobs.common.data.images.base import ImageSet
from jobs.common.data.training_data import TrainingImages
from jobs.common.robustness.accuracy import attacked, correct
from jobs.common.training import parallel
from jobs.common.training.adversarial.methods.base import Method, Outcome
from jobs.common.training.adversarial.methods.fgsm_rs import RandomStartStep
from jobs.common.training.adversarial.methods.free import Free
from jobs.common.training.adversarial.methods.natural import Natural
from jobs.common.training.adversarial.methods.pgd import ProjectedGradient
from jobs.common.training.adversarial.methods.trades import Trades
from jobs.common.training.adversarial.objective import Objective
from jobs.common.training.adversarial.overfitting import OverfittingStop
from jobs.common.training.adversarial.training import TrainingParams, build_optimizer, train
from jobs.common.training.engine import Engine, EngineParams
from jobs.common.training.optimizers import OptimizerParams
from jobs.common.training.schedules import StepDecay
from service.errors import InputError, RunFailedError
from service.run import Run
from service.store import open_store
from tests.jobs.common.training.adversarial import tiny
from tests.jobs.killed import KilledAtReport
from tests.ranks import answers

BALL = Ball("Linf", 0.1)
METHODS = [
    Natural(replay=2),
    Free(replay=3),
    Free(replay=3, delta="random"),
    ProjectedGradient(steps=2),
    RandomStartStep(stop=OverfittingStop(drop=0.9, every=2)),
    Trades(steps=2),
]


def data_of(images: ImageSet, params: TrainingParams, run: Run) -> TrainingImages:
    return TrainingImages(images, params.held_out, params.batch, params.augmentation, run.seed_for)


def trained(net: nn.Module, method: Method, run: Run, params: TrainingParams = tiny.TRAINING) -> nn.Module:
    train(net, data_of(tiny.images(), params, run), method, BALL, params, run)
    return net


def without_time(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{name: value for name, value in row.items() if name != "train_seconds"} for row in rows]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: f"{method.label} {getattr(method, 'delta', '')}")
def test_killed_and_resumed_is_the_same_as_undisturbed(make_run: Any, method: Method) -> None:
    """Killed after 10 of 12 updates: in the middle of the replays of a minibatch. With dropout and augmentation."""
    params = tiny.TRAINING.model_copy(update={"augmentation": AugmentationParams(padding=1, flip=True)})
    run = make_run("undisturbed")
    undisturbed = trained(tiny.network(dropout=0.3), method, run, params)
    with pytest.raises(KeyboardInterrupt):
        trained(tiny.network(dropout=0.3), method, make_run("killed", kind=KilledAtReport), params)
    again = make_run("killed")
    resumed = trained(tiny.network(seed=1, dropout=0.3), method, again, params)
    for (name, one), other in zip(resumed.state_dict().items(), undisturbed.state_dict().values(), strict=True):
        assert torch.equal(one, other), name
    assert without_time(again.rows) == without_time(run.rows)
    assert [row["step"] for row in run.rows] == [5, 10, 12]


class Forgetful(Run):
    """Its checkpoints have no perturbation."""

    def restore(self, phase: str = "main") -> dict[str, Any] | None:
        if state := super().restore(phase):
            del state["step"]["delta"]
        return state


class Enlarged(Run):
    """Its checkpoints have the perturbation of a larger batch."""

    def restore(self, phase: str = "main") -> dict[str, Any] | None:
        if state := super().restore(phase):
            state["step"]["delta"] = torch.zeros(9, 2, 6, 6)
        return state


def test_without_a_saved_perturbation_it_begins_at_none(make_run: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        trained(tiny.network(), Free(replay=3), make_run(kind=KilledAtReport))
    again = make_run(kind=Forgetful)
    trained(tiny.network(), Free(replay=3), again)
    assert again.rows[-1]["step"] == 12


def test_a_perturbation_of_another_batch_is_refused(make_run: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        trained(tiny.network(), Free(replay=3), make_run(kind=KilledAtReport))
    with pytest.raises(InputError, match=r"perturbation of shape \(9, 2, 6, 6\), but a batch is \(8, 2, 6, 6\)"):
        trained(tiny.network(), Free(replay=3), make_run(kind=Enlarged))


class Recorder(Free):
    """Free, remembering what it was given. The perturbation goes on; minibatches are replayed."""

    def update(self, objective: Any, images: Tensor, labels: Tensor, delta: Tensor, ball: Ball) -> Outcome:
        outcome = super().update(objective, images, labels, delta, ball)
        SEEN.append((images, delta, outcome.delta))
        return outcome


SEEN: list[tuple[Tensor, Tensor, Tensor]] = []


def test_minibatches_are_replayed_and_the_perturbation_goes_on_between_them(make_run: Any) -> None:
    SEEN.clear()
    params = tiny.TRAINING.model_copy(update={"augmentation": AugmentationParams(flip=True), "updates": 7})
    trained(tiny.network(), Recorder(replay=3), make_run(), params)
    images, before, after = zip(*SEEN, strict=True)
    assert not before[0].any(), "it begins with none"
    assert all(torch.equal(*pair) for pair in zip(after, before[1:], strict=False)), "and is never reset"
    same = [torch.equal(*pair) for pair in zip(images, images[1:], strict=False)]
    assert same == [True, True, False, True, True, False], "augmentation is drawn once for a minibatch"


@pytest.mark.parametrize(
    ("method", "each"), [(Natural(), 1), (Free(replay=4), 1), (RandomStartStep(stop=None), 2), (ProjectedGradient(), 8)]
)
def test_counters(make_run: Any, method: Method, each: int) -> None:
    run = make_run()
    trained(tiny.network(), method, run)
    assert run.metrics["gradient_evaluations"] == 12 * each
    assert run.metrics["train_seconds"] > 0


def test_the_schedule_counts_updates(make_run: Any) -> None:
    """With the rate near zero from update 4 on, weights after 4 updates are those after 12, whatever the replay."""
    nothing = OptimizerParams(
        kind="sgd", learning_rate=0.05, momentum=0.0, decay=StepDecay(milestones=(4,), factor=1e-12)
    )
    long = tiny.TRAINING.model_copy(update={"optimizer": nothing, "keep": "last"})
    short = long.model_copy(update={"updates": 4})
    for replay in (1, 4):
        one = trained(tiny.network(False), Free(replay=replay), make_run(f"long {replay}"), long)
        other = trained(tiny.network(False), Free(replay=replay), make_run(f"short {replay}"), short)
        for left, right in zip(one.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(left, right)


class Fragile(RandomStartStep):
    """Loses its robustness between the second check and the third, as catastrophic overfitting does."""

    def update(self, objective: Any, images: Tensor, labels: Tensor, delta: Tensor, ball: Ball) -> Outcome:
        outcome = super().update(objective, images, labels, delta, ball)
        if objective.evaluations == 2 * 5:
            with torch.no_grad():
                objective.network[-1].weight.zero_()
                objective.network[-1].bias.copy_(torch.tensor([-1.0, 0.0, 1.0]))
        return outcome


def test_catastrophic_overfitting_goes_back_and_stops(make_run: Any) -> None:
    params = tiny.TRAINING.model_copy(update={"keep": "last", "report_every": 100, "updates": 40})
    method = Fragile(stop=OverfittingStop(every=2, drop=0.2))
    run = make_run()
    net = trained(tiny.network(), method, run, params)
    assert [row["step"] for row in run.rows] == [6] and run.metrics["collapsed_at"] == 6
    before = trained(tiny.network(), method, make_run("four"), params.model_copy(update={"updates": 4}))
    for one, other in zip(net.parameters(), before.parameters(), strict=True):
        assert torch.equal(one, other), "the weights of the check before"
    again = make_run()  # as if killed after its last checkpoint
    resumed = trained(tiny.network(seed=1), method, again, params)
    assert without_time(again.rows) == without_time(run.rows)
    for one, other in zip(net.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)


def test_without_the_stop_it_goes_on(make_run: Any) -> None:
    run = make_run()
    trained(tiny.network(), Fragile(stop=None), run)
    assert run.rows[-1]["step"] == 12 and "collapsed_at" not in run.metrics


def test_best_weights_are_those_of_the_best_validation(make_run: Any) -> None:
    params = tiny.TRAINING.model_copy(
        update={"report_every": 1, "optimizer": OptimizerParams(kind="sgd", learning_rate=2.0)}
    )
    for method, aim in ((Free(replay=2), "val_robust"), (Natural(), "val_clean")):
        run = make_run(aim)
        net = trained(tiny.network(), method, run, params)
        held_out = data_of(tiny.images(), params, run).held_out
        seeds = [run.seed_for("validation", index) for index in range(9)]
        accuracy = {
            "val_clean": correct(net, held_out, 4),
            "val_robust": attacked(net, held_out, params.validation, BALL, 4, seeds.__getitem__).robust,
        }[aim]
        best = max(row[aim] for row in run.rows)
        assert accuracy.double().mean() == pytest.approx(best) and best > min(row[aim] for row in run.rows)


def test_a_loss_that_diverges_ends_the_trial_in_a_sentence(make_run: Any) -> None:
    params = tiny.TRAINING.model_copy(
        update={"optimizer": OptimizerParams(kind="sgd", learning_rate=10, weight_decay=1)}
    )
    with pytest.raises(RunFailedError, match="between weight updates [0-9]+ and [0-9]+ .*learning_rate"):
        trained(tiny.network(False), Free(replay=2), make_run(), params.model_copy(update={"updates": 500}))


def test_weight_decay_can_leave_vectors_alone() -> None:
    net = tiny.network()
    for decay_all in (True, False):
        optimizer = build_optimizer(net, tiny.TRAINING.model_copy(update={"decay_all": decay_all}))
        decays = {id(each): group["weight_decay"] for group in optimizer.param_groups for each in group["params"]}
        assert len(decays) == len(list(net.parameters()))
        for parameter in net.parameters():
            assert decays[id(parameter)] == (2e-4 if decay_all or parameter.ndim > 1 else 0.0)


# ---- half precision ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_half_precision_is_refused_without_a_gpu(make_run: Any, name: Any) -> None:
    if torch.cuda.is_available():
        pytest.skip("this process has a GPU")
    with pytest.raises(InputError, match=f"engine.precision must be float32 where training has no GPU; it is '{name}'"):
        trained(
            tiny.network(),
            Free(),
            make_run(),
            tiny.TRAINING.model_copy(update={"engine": EngineParams(precision=name)}),
        )


@pytest.mark.parametrize("name", ["bfloat16", "float16"])
@pytest.mark.parametrize("method", [Free(), ProjectedGradient(steps=2), Trades(steps=2)], ids=lambda each: each.label)
def test_half_precision_gives_nearly_the_same_update(name: Any, method: Method) -> None:
    """On the CPU, which computes in half precision too if only slowly. float16 goes through the scaled loss."""
    images, labels = tiny.images().images(torch.arange(8)), tiny.images().labels[:8]
    weights = {}
    for precision_name in ("float32", name):
        net = tiny.network(batch_norm=False)
        engine = Engine(net.train(), EngineParams(precision=precision_name))
        objective = Objective(engine, 8)
        optimizer = build_optimizer(net, tiny.TRAINING)
        method.update(objective, images, labels, torch.zeros_like(images), BALL)
        engine.move(optimizer, clip=100.0)
        weights[precision_name] = torch.cat([parameter.detach().flatten() for parameter in net.parameters()])
    start = torch.cat([parameter.detach().flatten() for parameter in tiny.network(False).parameters()])
    moved, expected = weights[name] - start, weights["float32"] - start
    assert not torch.equal(moved, expected), "it is another precision"
    assert torch.cosine_similarity(moved, expected, dim=0) > 0.99
    assert moved.norm() == pytest.approx(float(expected.norm()), rel=0.1)


def test_an_overflow_in_float16_leaves_the_weights_and_lowers_the_scale() -> None:
    net = tiny.network(False)
    engine = Engine(net, EngineParams(precision="float16"))
    optimizer = build_optimizer(net, tiny.TRAINING)
    before = [parameter.clone() for parameter in net.parameters()]
    engine.scaled(sum(parameter.sum() for parameter in net.parameters())).backward()  # type: ignore[union-attr]
    for parameter in net.parameters():
        assert parameter.grad is not None
        parameter.grad.fill_(math.inf)
    scale = engine.scaler.get_scale()
    engine.move(optimizer, clip=1.0)
    assert all(torch.equal(one, other) for one, other in zip(before, net.parameters(), strict=True))
    assert engine.scaler.get_scale() < scale


# ---- several processes ---------------------------------------------------------------------------------------------

SHARED = tiny.TRAINING.model_copy(update={"batch": 7, "updates": 9, "report_every": 4})
CASES = {
    "free, batch norm": (Free(replay=3), True),
    "free": (Free(replay=3), False),
    "pgd, batch norm": (ProjectedGradient(steps=2), True),
    "trades, batch norm": (Trades(steps=2), True),
    "fgsm-rs": (RandomStartStep(stop=OverfittingStop(every=3, drop=0.9)), False),
}


def train_shared(folder: str, name: str) -> dict[str, Any]:
    """Train on batches of 7, on as many ranks as there are. Only rank 0 keeps a checkpoint, as in the service."""
    method, batch_norm = CASES[name]
    writer = parallel.rank() == 0
    run = Run(open_store(folder) / f"{name} {parallel.world()} {parallel.rank()}", 0)
    net = trained(tiny.network(batch_norm), method, run, SHARED)
    kept = Run(run.folder, 0).restore() if writer else None
    return {
        "state": {key: value.clone() for key, value in net.state_dict().items()},
        "rows": without_time(run.rows),
        "delta": None if kept is None else kept["step"].get("delta"),
    }


def all_shared(folder: str) -> dict[str, dict[str, Any]]:
    return {name: train_shared(folder, name) for name in CASES}


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What two processes found, by rank."""
    return answers(all_shared, str(tmp_path_factory.mktemp("two")))


@pytest.mark.parametrize("name", CASES)
def test_two_processes_train_as_one_does(two: list[dict[str, Any]], name: str, tmp_path: Any) -> None:
    one = train_shared(str(tmp_path), name)
    for rank in (0, 1):
        torch.testing.assert_close(two[rank][name]["state"], one["state"], rtol=1e-3, atol=1e-4)
        for found, expected in zip(two[rank][name]["rows"], one["rows"], strict=True):
            assert found == pytest.approx(expected, rel=1e-3)
    if one["delta"] is not None:
        torch.testing.assert_close(two[0][name]["delta"], one["delta"], rtol=1e-3, atol=1e-5)


def test_an_attacked_set_is_the_same_whatever_the_batches_of_other_ranks(make_run: Any) -> None:
    """In one process: the verdict of each image is that of attacking its batch alone."""
    net, images = tiny.network().eval(), tiny.images(10)
    attack = PGD(steps=3)
    verdict = attacked(net, images, attack, BALL, 4, lambda index: 100 + index)
    alone = [
        attack.run(net, images.images(rows), images.labels[rows], BALL, 100 + index)
        for index, rows in enumerate(torch.arange(10).split(4))
    ]
    assert torch.equal(verdict.robust, torch.cat([~each.successful for each in alone]))
    assert torch.equal(verdict.gradients, torch.cat([each.gradients for each in alone]))
    assert torch.equal(correct(net, images, 3), net(images.images(torch.arange(10))).argmax(1) == images.labels)
