"""The loop: killed and resumed, accumulated, shared by two processes; rates of groups, batch norm, the loss."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from jobs.common.data.masks.augmentation import JointAugmentationParams
from jobs.common.data.masks.base import Pairs
from jobs.common.data.training_data import TrainingMasks
from jobs.common.metrics.segmentation import IGNORE
from jobs.common.training import parallel
from jobs.common.training.engine import EngineParams
from jobs.stacked_unets.objective import pixel_loss
from jobs.stacked_unets.training import BatchNormParams, TrainingParams, parameter_groups, prepare_batch_norms, train
from service.errors import InputError, RunFailedError
from service.run import Run
from service.store import open_store
from tests.jobs.killed import KilledAtReport
from tests.jobs.stacked_unets import tiny
from tests.ranks import answers


def trained(net: nn.Module, run: Run, params: TrainingParams = tiny.TRAINING, images: Any = None) -> nn.Module:
    chosen = images or tiny.halves("train")
    data = TrainingMasks(chosen, params.held_out, params.batch, params.augmentation, run.seed_for)
    train(net, data, params, run)
    return net


def without_time(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{name: value for name, value in row.items() if name != "train_seconds"} for row in rows]


ALL = {"keep": "best", "accumulate": 2, "batch_norm": BatchNormParams(policy="freeze")}


@pytest.mark.parametrize(("name", "change"), [("plain", {}), ("sunet_tiny", ALL)])
def test_killed_and_resumed_is_the_same_as_undisturbed(make_run: Any, name: str, change: dict[str, Any]) -> None:
    params = tiny.TRAINING.model_copy(update=change)
    run = make_run("undisturbed")
    undisturbed = trained(tiny.network(name=name), run, params)
    with pytest.raises(KeyboardInterrupt):
        trained(tiny.network(name=name), make_run("killed", kind=KilledAtReport), params)
    again = make_run("killed")
    resumed = trained(tiny.network(1, name), again, params)
    for (key, one), other in zip(resumed.state_dict().items(), undisturbed.state_dict().values(), strict=True):
        assert torch.equal(one, other), key
    assert without_time(again.rows) == without_time(run.rows)
    assert [row["step"] for row in run.rows] == [2, 4, 6]


def test_it_learns(make_run: Any) -> None:
    run = make_run()
    params = tiny.TRAINING.model_copy(update={"updates": 25, "report_every": 25})
    trained(tiny.network(name="plain"), run, params)
    assert run.metrics["val_mean_iou"] > 0.9


def test_accumulation_averages_the_gradients_of_its_passes(make_run: Any) -> None:
    """Without batch norm, two passes of two images are one of four: all have as many pixels that count."""
    whole = tiny.TRAINING.model_copy(update={"updates": 2, "augmentation": JointAugmentationParams(flip=False)})
    parts = whole.model_copy(update={"batch": 2, "accumulate": 2})
    nets = []
    for name, params in (("whole", whole), ("parts", parts)):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 3, padding=1))
        nets.append(trained(net, make_run(name), params))
    for one, other in zip(*(net.parameters() for net in nets), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_rates_of_backbone_head_and_biases() -> None:
    params = TrainingParams()
    net: Any = tiny.network()
    groups = dict(parameter_groups(net, params))
    assert groups.keys() == {1.0, 10.0, 20.0}
    assert [id(each) for each in groups[20.0]] == [id(net.network.head[0].bias)]
    assert [id(each) for each in groups[10.0]] == [id(net.network.head[0].weight)]
    assert {id(each) for each in groups[1.0]} == {id(each) for each in net.network.backbone.parameters()}
    everything = dict(parameter_groups(nn.Sequential(nn.Conv2d(3, 3, 1)), params))
    assert everything.keys() == {1.0}, "a network of the user's own has no head that is known"


def test_frozen_batch_norms_stay_as_they_are(make_run: Any) -> None:
    params = tiny.TRAINING.model_copy(update={"batch_norm": BatchNormParams(policy="freeze"), "updates": 2})
    before: Any = tiny.network().state_dict()
    after = trained(tiny.network(), make_run(), params).state_dict()
    same = {name for name in before if torch.equal(before[name], after[name])}
    norms = {
        f"{name}.{part}"
        for name, layer in tiny.network().named_modules()
        if isinstance(layer, nn.BatchNorm2d)
        for part in layer.state_dict()
    }
    assert norms and norms == same & norms and "network.head.0.weight" not in same


def test_momentum_is_that_of_the_backbone_alone() -> None:
    net: Any = tiny.network()
    net.network.head.append(nn.BatchNorm2d(3))
    prepare_batch_norms(net, BatchNormParams(momentum=0.01))
    assert {each.momentum for each in net.network.backbone.modules() if isinstance(each, nn.BatchNorm2d)} == {0.01}
    assert net.network.head[-1].momentum == 0.1


def test_the_loss_is_the_mean_over_pixels_that_count() -> None:
    stream = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 5, generator=stream)
    labels = torch.randint(0, 3, (2, 4, 5), generator=stream)
    labels[0, :2] = IGNORE
    expected = nn.functional.cross_entropy(logits, labels, ignore_index=IGNORE)
    torch.testing.assert_close(pixel_loss(logits, labels), expected)

    probability = logits.softmax(1).gather(1, labels.where(labels != IGNORE, 0)[:, None])[:, 0]
    hard = (probability <= 0.5) & (labels != IGNORE)
    torch.testing.assert_close(pixel_loss(logits, labels, 0.5), -probability[hard].log().mean())


def test_images_without_a_pixel_that_counts_teach_nothing(make_run: Any) -> None:
    logits = torch.randn(2, 3, 4, 5, requires_grad=True)
    loss = pixel_loss(logits, torch.full((2, 4, 5), IGNORE))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0 and logits.grad is not None and not logits.grad.any()

    images = torch.zeros(8, 3, 32, 32, dtype=torch.uint8)
    labels = torch.full((8, 32, 32), IGNORE).to(torch.uint8)
    nothing = Pairs("nothing", ("a", "b", "c"), ((0, 0, 0),) * 3, images, labels)
    run = make_run()
    trained(tiny.network(), run, tiny.TRAINING.model_copy(update={"updates": 1}), nothing)
    assert run.rows[-1]["train_loss"] == 0 and math.isnan(run.rows[-1]["val_mean_iou"])


def test_what_cannot_be_trained_is_said(make_run: Any) -> None:
    with pytest.raises(RunFailedError, match="training loss is (nan|inf)"):
        broken = tiny.TRAINING.optimizer.model_copy(update={"learning_rate": 1e30})
        trained(tiny.network(), make_run("rate"), tiny.TRAINING.model_copy(update={"optimizer": broken}))
    with pytest.raises(InputError, match="one value for each channel"):
        deep = tiny.network(name="deeplabv3_mobilenet_v3_large")
        trained(deep, make_run("one"), tiny.TRAINING.model_copy(update={"batch": 1}))
    with pytest.raises(InputError, match="engine.precision must be float32 where training has no GPU"):
        trained(
            tiny.network(),
            make_run("half"),
            tiny.TRAINING.model_copy(update={"engine": EngineParams(precision="float16")}),
        )


def on_each_rank(folder: str) -> dict[str, Any]:
    run = Run(open_store(folder) / f"rank {parallel.rank()}", 0)
    net = trained(tiny.network(name="plain"), run, SHARED)
    return {**net.state_dict(), "loss": torch.tensor(run.rows[-1]["train_loss"])}


SHARED = tiny.TRAINING.model_copy(update={"updates": 2, "batch": 5, "held_out": 3, "accumulate": 2})


def test_two_processes_that_share_each_batch(make_run: Any, tmp_path: Any) -> None:
    """Ranks have 3 and 2 images, with numbers of ignored pixels of their own: the same weights as one process."""
    run = make_run("alone")
    alone: dict[str, Tensor] = dict(trained(tiny.network(name="plain"), run, SHARED).state_dict())
    for shared in answers(on_each_rank, str(tmp_path)):
        assert float(shared.pop("loss")) == pytest.approx(run.rows[-1]["train_loss"], rel=1e-4)
        for name, tensor in alone.items():
            assert torch.allclose(shared[name], tensor, rtol=2e-3, atol=2e-4), name
