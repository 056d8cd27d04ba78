"""How a network computes while it is trained: precision, memory format, compilation, and where the data are kept.

On a CPU the defaults change nothing: float32, and each network in the memory format that it was built with.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from jobs.common.params import StudyParams
from jobs.common.training import parallel
from jobs.common.training.optimizers import device_of
from service.errors import FieldError

CPU = torch.device("cpu")
Batch = tuple[Tensor, ...]
RESERVE = "resources.gpus=1 reserves one"
COMPILER: dict[str, dict[str, str | int | bool | Callable[..., Any]]] = {
    "kernels": {"fallback_random": True},  # dropout draws what it draws without the compiler
    "graphs": {"fallback_random": True, "triton.cudagraphs": True},
}


class EngineParams(StudyParams):
    """How the network computes while it is trained; weights, losses and perturbations stay in float32."""

    precision: Literal["float32", "bfloat16", "float16"] = Field(
        "float32",
        description="of the network's layers: bfloat16 or float16 (with a scaled loss) need a GPU; there convolutions "
        "in float32 round their factors to TF32, unless resources.tf32 is false",
    )
    channels_last: bool = Field(
        True, description="on a GPU: images and convolutions lie in memory with their channels last"
    )
    compile: Literal["kernels", "graphs"] | None = Field(
        None,
        description="torch.compile fuses what is computed in training into fewer kernels; graphs: a GPU also repeats "
        "them as CUDA graphs, without waiting for Python. Its first updates take minutes; none: as the network says it",
    )
    resident: bool = Field(
        True, description="on a GPU: keep a training set of pixels there if it fits; else every batch is sent to it"
    )

    def check(self, device: torch.device) -> None:
        """FieldError if the processor has nothing to gain from half precision or cannot do what is to be compiled."""
        if self.precision != "float32" and device.type == "cpu":
            raise FieldError(
                "engine.precision",
                "be float32 where training has no GPU",
                self.precision,
                hint=RESERVE,
            )
        if self.compile == "graphs" and device.type == "cpu":
            raise FieldError(
                "engine.compile", "be kernels or none where training has no GPU", self.compile, hint=RESERVE
            )
        if self.compile == "graphs" and parallel.world() > 1:
            raise FieldError("engine.compile", "be kernels or none where several workers train", self.compile)

    def home(self, device: torch.device) -> torch.device:
        """Where a training set is kept, if it fits there. device: where the network is."""
        return device if self.resident else CPU


class Engine:
    """A network that is being trained: its forward and backward passes, and the movement of its weights."""

    def __init__(self, network: nn.Module, params: EngineParams, accumulate: int = 1) -> None:
        """Prepare a network in place. accumulate: passes whose gradients are averaged for one weight update."""
        self.device = device_of(network)
        self.accumulate = accumulate
        self.network = parallel.convert_batch_norm(network)
        self._dtype: torch.dtype = getattr(torch, params.precision)
        self._format = torch.preserve_format
        if params.channels_last and self.device.type != "cpu":
            self._format = torch.channels_last
            self.network.to(memory_format=self._format)
        self._graphs = params.compile == "graphs"
        self._compiled: dict[nn.Module, Callable[..., Any]] = {}
        """parts of the network, and what is called for them in training"""
        if params.compile is not None:
            # batches of few shapes: one compiled for any shape would be slower, and no graph
            self._compiled = {
                part: torch.compile(part._call_impl, dynamic=False, options=COMPILER[params.compile])
                for part in compiled_parts(self.network)
            }
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=params.precision == "float16")
        """float16 alone needs it: bfloat16 has the range of float32"""

    @contextmanager
    def passes(self) -> Iterator[None]:
        """Inside are the passes of one update, compiled if the section says so: everything else is not.

        The gradients of earlier updates must be gone: CUDA graphs lay the new ones where those were.
        """
        if self._graphs:
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        for part, compiled in self._compiled.items():
            part._compiled_call_impl = compiled
        try:
            yield
        finally:
            for part in self._compiled:
                part._compiled_call_impl = None

    def autocast(self) -> AbstractContextManager[Any]:
        """Inside, the network computes in the precision of the section."""
        if self._dtype is torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, self._dtype)

    def __call__(self, *inputs: Any) -> Tensor:
        """The network's logits, in float32 whatever its precision."""
        with self.autocast():
            logits: Tensor = self.network(*inputs)
        return logits if self._dtype is torch.float32 else logits.float()

    def share(self, loss: Tensor) -> Tensor:
        """What the loss of one pass adds to that of the update."""
        return loss if self.accumulate == 1 else loss / self.accumulate

    def scaled(self, loss: Tensor) -> Tensor:
        """The loss whose gradients are to be taken; directions of steepest ascent do not depend on the scale."""
        scaled: Tensor = self.scaler.scale(self.share(loss))
        return scaled

    def move(
        self, optimizer: torch.optim.Optimizer, clip: float | None, again: Callable[[], Tensor] | None = None
    ) -> None:
        """Move the weights along their scaled gradients; left out where these overflowed, and the scale is lowered.

        again: computes gradients at the weights as they are then, and returns the loss; for optimizers that ask for it.
        """
        if again is not None:
            optimizer.step(again)  # type: ignore[arg-type]
            return
        if clip is not None:
            self.scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(self.network.parameters(), clip)
        self.scaler.step(optimizer)
        self.scaler.update()

    def send(self, batch: Batch) -> Batch:
        """A batch on the device, images in the memory format of the network."""
        return tuple(self._send(tensor) for tensor in batch)

    def _send(self, tensor: Tensor) -> Tensor:
        if self.device.type == "cuda" and tensor.device.type == "cpu":
            tensor = tensor.pin_memory()  # from there it is copied while the GPU computes
        images = tensor.ndim == 4 and tensor.is_floating_point()
        memory_format = self._format if images else torch.preserve_format
        return tensor.to(self.device, non_blocking=True, memory_format=memory_format)

    def seed(self, value: int) -> None:
        """Seed torch's own generators, on the CPU and on the device (dropout).

        As torch.manual_seed, which asks all kinds of devices for it: a hundred times as slow, at every update.
        """
        torch.default_generator.manual_seed(value)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(value)

    def random_state(self) -> list[Tensor]:
        """What torch's own generators go on from, on the CPU and on the device."""
        states = [torch.get_rng_state()]
        return [*states, torch.cuda.get_rng_state(self.device)] if self.device.type == "cuda" else states

    def set_random_state(self, states: list[Tensor]) -> None:
        """Let them draw once more what they have drawn since `random_state`."""
        torch.set_rng_state(states[0])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(states[1], self.device)

    @property
    def random_devices(self) -> list[torch.device]:
        """Devices besides the CPU whose random generators training draws from."""
        return [] if self.device.type == "cpu" else [self.device]


def compiled_parts(network: nn.Module) -> list[nn.Module]:
    """What is compiled, each by itself: what the network's method of this name says, else all of the network."""
    parts = getattr(network, "compiled_parts", None)
    return [network] if parts is None else parts()


@contextmanager
def tiny_as_zero() -> Iterator[None]:
    """Inside, numbers below float32's normal range, 1.2e-38, are zero on the CPU, in the thread that asks for it.

    Not in the threads that torch may have for operations on large tensors. Where data are fitted or units are dead,
    gradients and moments are such numbers and stay so, and a CPU computes with them several times as slowly.
    """
    before = sys.float_info.min / 2 == 0  # torch does not say
    if not before:
        _start_threads(torch.get_num_threads())
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


@cache
def _start_threads(count: int) -> None:
    """Begin torch's threads: one that began where tiny numbers are zero would have them so from there on."""
    torch.zeros(count << 16).add_(1)  # enough for each of them to get a part
