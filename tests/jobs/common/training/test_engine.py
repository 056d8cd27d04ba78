"""What a section `engine` does to a network and its batches; a GPU is stood in for by the meta device."""

import shutil

import pytest
import torch
from torch import nn

from jobs.common.data.images.base import Part, Pixels
from jobs.common.data.masks.augmentation import JointAugmentationParams
from jobs.common.data.masks.base import Pairs
from jobs.common.data.residence import resident
from jobs.common.data.training_data import TrainingMasks
from jobs.common.training.engine import CPU, Batch, Engine, EngineParams
from jobs.common.training.loader import Loader
from service.errors import FieldError

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


def test_a_network_is_compiled_where_the_section_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[nn.Module] = []
    monkeypatch.setattr(nn.Module, "compile", lambda self: compiled.append(self))
    Engine(network(), EngineParams())
    engine = Engine(network(), EngineParams(compile=True))
    assert compiled == [engine.network], "in place: the names of its weights stay"


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
def test_what_is_compiled_learns_what_is_not() -> None:
    """Forward, backward and running statistics, by the compiler of torch; on a GPU it is the same path."""
    if shutil.which("g++") is None:
        pytest.skip("torch.compile needs a C++ compiler here")
    images, labels = torch.rand(8, 2, 6, 6), torch.arange(8) % 3
    states = []
    for compiled in (False, True):
        torch.manual_seed(0)
        engine = Engine(network(), EngineParams(compile=compiled))
        optimizer = torch.optim.SGD(engine.network.parameters(), 0.1, momentum=0.9)
        for _ in range(3):
            optimizer.zero_grad()
            engine.scaled(nn.functional.cross_entropy(engine(images), labels)).backward()
            engine.move(optimizer, clip=1.0)
        states.append(engine.network.state_dict())
    for name, tensor in states[0].items():
        torch.testing.assert_close(states[1][name], tensor, rtol=1e-4, atol=1e-5, msg=name)
