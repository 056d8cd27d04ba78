"""What a section `engine` does to a network and its batches; a GPU is stood in for by the meta device."""

import contextlib
import shutil
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from jobs.common.data.images.base import Part, Pixels
from jobs.common.data.masks.augmentation import JointAugmentationParams
from jobs.common.data.masks.base import Pairs
from jobs.common.data.residence import resident
from jobs.common.data.training_data import TrainingMasks
from jobs.common.training import loop, parallel
from jobs.common.training.engine import CPU, Batch, Engine, EngineParams
from jobs.common.training.loader import Loader
from jobs.common.training.optimizers import OptimizerParams
from jobs.common.training.supervised import ClassifierStep
from jobs.deep_thinking.networks import network as thinker
from jobs.deep_thinking.training import TrainingParams as ThinkingParams
from service.errors import FieldError
from service.run import Run
from tests.jobs.killed import KilledAtReport

META = torch.device("meta")


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 16, 3))


def test_half_precision_ends_at_the_logits() -> None:
    images = torch.rand(2, 2, 6, 6)
    for name in ("bfloat16", "float16"):
        engine = Engine(network(), EngineParams(precision=name))
        with engine.autocast():
            assert engine.network(images).dtype == getattr(torch, name)
        assert engine(images).dtype == torch.float32
        assert all(parameter.dtype == torch.float32 for parameter in engine.network.parameters())
    with pytest.raises(FieldError, match="engine.precision must be float32 where .* no GPU; it is 'bfloat16'"):
        EngineParams(precision="bfloat16").check(CPU)
    EngineParams(precision="bfloat16").check(torch.device("cuda"))


def test_channels_come_last_beside_a_gpu_alone() -> None:
    def lies(device: torch.device, channels_last: bool) -> tuple[bool, bool]:
        engine = Engine(network().to(device), EngineParams(channels_last=channels_last))
        images, labels = engine.send((torch.rand(2, 2, 6, 6), torch.zeros(2, 6, 6, dtype=torch.int64)))
        assert images.device.type == labels.device.type == device.type and labels.is_contiguous()
        tensors = (engine.network.get_parameter("0.weight"), images)
        one, other = (each.is_contiguous(memory_format=torch.channels_last) for each in tensors)
        return one, other

    assert lies(META, True) == (True, True)
    assert lies(META, False) == lies(CPU, True) == (False, False)


def test_passes_of_training_are_compiled_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs begin anew with each update; validation and what comes after training call the network itself."""
    asked: list[dict[str, Any]] = []
    marks: list[str] = []

    def compiled(function: Callable[..., Any], dynamic: bool, options: dict[str, Any]) -> Callable[..., Any]:
        asked.append(options)
        return lambda *inputs: marks.append("compiled") or function(*inputs)

    monkeypatch.setattr(torch, "compile", compiled)
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: marks.append("begin"))
    images = torch.rand(2, 2, 6, 6)
    for params, inside in (
        ({}, []),
        ({"compile": "kernels"}, ["compiled"]),
        ({"compile": "graphs"}, ["begin", "compiled"]),
    ):
        engine = Engine(network(), EngineParams(**params))
        names = [*engine.network.state_dict()]
        with engine.passes():
            logits = engine(images)
        torch.testing.assert_close(engine.network(images), logits, rtol=0, atol=0)
        assert marks == inside and [*engine.network.state_dict()] == names
        marks.clear()
    assert [options.get("triton.cudagraphs", False) for options in asked] == [False, True]


def test_what_is_iterated_is_compiled_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    net = thinker("dt_net_1d", channels=1, width=4)
    assert list(Engine(net, EngineParams(compile="kernels"))._compiled) == [net.recurrent["blocks"], net.head]
    net = thinker("feed_forward_1d", channels=1, width=4, max_iterations=2)
    assert list(Engine(net, EngineParams(compile="kernels"))._compiled) == [*net.groups, net.head]


def test_graphs_need_a_gpu_and_one_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = EngineParams(compile="graphs")
    with pytest.raises(FieldError, match="engine.compile must be kernels or none where .* no GPU; it is 'graphs'"):
        graphs.check(CPU)
    graphs.check(torch.device("cuda"))
    monkeypatch.setattr(parallel, "world", lambda: 2)
    with pytest.raises(FieldError, match="engine.compile must be kernels or none where several workers train"):
        graphs.check(torch.device("cuda"))
    with pytest.raises(ValidationError, match="must be kernels or none where alpha is above 0"):
        ThinkingParams(engine=graphs)
    ThinkingParams(engine=graphs, alpha=0)


def test_the_loss_of_a_pass_is_its_share_of_the_update() -> None:
    assert float(Engine(network(), EngineParams(), accumulate=4).scaled(torch.tensor(2.0))) == 0.5


def test_pixels_are_kept_where_the_network_is_if_they_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = Pixels("grey", ("a", "b"), torch.zeros(10, 1, 4, 4, dtype=torch.uint8), torch.arange(10) % 2)
    part = Part(pixels, torch.arange(3, 9))
    assert EngineParams().home(META) == META and EngineParams(resident=False).home(META) == CPU
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (320, 1000))
    moved = resident(part, META)
    assert moved.labels.device == META and moved.images(torch.arange(2)).device == META
    assert moved.images(torch.arange(2)).shape == (2, 1, 4, 4)
    assert part.labels.device == CPU, "the set itself stays where it is"
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (319, 1000))
    assert resident(part, META).labels.device == CPU, "more than half of what is free"
    assert resident(pixels, CPU).images(torch.arange(2)).device == CPU


def test_masks_are_kept_there_unless_they_are_resampled(monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = torch.zeros(10, 3, 20, 20, dtype=torch.uint8), torch.zeros(10, 20, 20, dtype=torch.uint8)
    flags = Pairs("flags", ("a", "b"), ((0, 0, 0), (255, 255, 255)), images, labels)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1 << 20, 1 << 20))
    for changes, device in (({"crop": 16}, META), ({"crop": 16, "rotate": 5.0}, CPU), ({"scale": (0.9, 1.0)}, CPU)):
        augmentation = JointAugmentationParams(**{"crop": 24} | changes)
        data = TrainingMasks(flags, 2, 4, augmentation, lambda *key: 0, META)
        side = augmentation.crop
        for tensor, shape in zip(data.batch(0), ((4, 3, side, side), (4, side, side)), strict=True):
            assert tensor.device == device and tensor.shape == shape


class Numbered:
    """Batches that say which they are. The last one cannot be made."""

    def batch(self, index: int) -> Batch:
        if index == 4:
            raise OSError("the disk is gone")
        return (torch.tensor([index]),)


@pytest.mark.parametrize("ahead", [True, False])
def test_batches_come_in_order_and_so_do_errors(ahead: bool) -> None:
    loader = Loader(Numbered(), Engine(network(), EngineParams()), 5, ahead)
    assert [int(loader.batch(index)[0]) for index in range(1, 4)] == [1, 2, 3]
    with pytest.raises(OSError, match="the disk is gone"):
        loader.batch(4)
    loader.close()


class Queue:
    """Stands for a stream of CUDA: notes what is asked of it."""

    def __init__(self, name: str, notes: list[str]) -> None:
        self.name, self.notes = name, notes

    def wait_stream(self, other: "Queue") -> None:
        self.notes.append(f"{self.name} waits for {other.name}")

    def record_event(self) -> str:
        self.notes.append(f"{self.name} is marked")
        return f"mark {sum('marked' in note for note in self.notes)}"

    def wait_event(self, mark: str) -> None:
        self.notes.append(f"{self.name} waits for {mark}")

    def __enter__(self) -> None:
        self.notes.append(f"into {self.name}")

    def __exit__(self, *_: object) -> None:
        self.notes.append(f"out of {self.name}")


def test_a_gpu_is_sent_the_next_batch_in_a_queue_of_its_own_and_waits_for_it_before_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    notes: list[str] = []
    side, main = Queue("side", notes), Queue("main", notes)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: side)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: main)
    monkeypatch.setattr(
        torch.Tensor, "record_stream", lambda self, queue: notes.append(f"{int(self)} kept for {queue.name}")
    )
    engine = Engine(network(), EngineParams())
    engine.device = torch.device("cuda", 0)
    monkeypatch.setattr(engine, "send", lambda batch: notes.append(f"copy {int(batch[0])}") or batch)
    loader = Loader(Numbered(), engine, 3)
    made = [["into side", f"copy {index}", "side is marked", "out of side"] for index in range(3)]
    assert [int(loader.batch(0)[0]), int(loader.batch(1)[0]), int(loader.batch(2)[0])] == [0, 1, 2]
    loader.close()
    assert notes[:5] == ["side waits for main", *made[0]]
    for index in range(3):
        waited, kept = notes.index(f"main waits for mark {index + 1}"), notes.index(f"{index} kept for main")
        assert notes.index(f"copy {index}") < waited < kept, "it is there before the network sees it"
    assert [note for note in notes if note.startswith("copy")] == ["copy 0", "copy 1", "copy 2"], "each once"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_what_is_compiled_learns_what_is_not(make_run: Any) -> None:
    """By the loop of all studies, with dropout and running statistics, twice and killed; a GPU takes the same path."""
    if shutil.which("g++") is None:
        pytest.skip("torch.compile needs a C++ compiler here")

    def trained(name: str, compiled: str | None, kind: type[Run] = Run) -> tuple[Run, dict[str, torch.Tensor]]:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.2), nn.Flatten(), nn.Linear(64, 3))
        step = ClassifierStep(Engine(net, EngineParams(compile=compiled)))
        run, rates = make_run(name, kind=kind), OptimizerParams(kind="sgd", learning_rate=0.1, momentum=0.9, clip=1.0)
        plan = loop.Plan(updates=6, rates=rates, report_every=2, seed=lambda update: update)
        with contextlib.suppress(KeyboardInterrupt):
            loop.train(step, rates.build([(1.0, list(net.parameters()))]), Noise(), plan, run)
        return run, net.state_dict()

    plain, weights = trained("plain", None)
    run, compiled = trained("compiled", "kernels")
    for name, tensor in weights.items():
        torch.testing.assert_close(compiled[name], tensor, rtol=1e-4, atol=1e-5, msg=name)
    losses = [[row["train_loss"] for row in each.rows] for each in (plain, run)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5) and len(losses[0]) == 3
    trained("killed", "kernels", KilledAtReport)
    for name in ("again", "killed"):
        other, weights = trained(name, "kernels")
        assert other.rows == run.rows and all(torch.equal(weights[name], compiled[name]) for name in compiled)


class Noise:
    """Batch number `index` depends on that alone; the last one is shorter."""

    def batch(self, index: int) -> Batch:
        rows = 4 if index == 5 else 8
        return torch.rand(rows, 2, 6, 6, generator=torch.Generator().manual_seed(index)), torch.arange(rows) % 3
