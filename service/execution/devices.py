"""Where this process is to compute: a GPU if the spec reserved one for it, else the CPU.

Never what merely happens to be visible: a worker of Ray without a GPU of its own may see those of its neighbours.
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from service.errors import ClusterError, InputError

CPU = torch.device("cpu")
_reserved: torch.device | None = CPU  # of this process; none: nothing is reserved for what it does now


@contextmanager
def reservation(gpus: float, field: str = "resources.gpus") -> Iterator[torch.device]:
    """What is computed inside is computed on what was reserved: a GPU if `gpus` is above 0, else the CPU.

    field: where the user wrote `gpus`. ClusterError, one sentence, if a GPU was reserved and torch cannot use one.
    """
    with _set(device := _gpu(gpus, field) if gpus else CPU):
        yield device


@contextmanager
def nothing_reserved() -> Iterator[None]:
    """Inside, `reserved_device` refuses: what computes has to ask for a reservation first."""
    with _set(None):
        yield


@contextmanager
def _set(device: torch.device | None) -> Iterator[None]:
    global _reserved
    before, _reserved = _reserved, device
    try:
        yield
    finally:
        _reserved = before


def reserved_device() -> torch.device:
    """The device that is reserved for what this process computes, also inside a cell. InputError if none is."""
    if _reserved is None:
        raise InputError(
            "nothing is reserved for this part of the job: it runs beside its cells",
            hint="compute it inside run.reserved(fn, …) or run.map(fn, cells)",
        )
    return _reserved


def unused_gpus(gpus: float) -> str | None:
    """A sentence about the GPUs that this machine has and a spec does not ask for; None if there is nothing to say.

    gpus: what the spec asks for.
    """
    if gpus or not torch.cuda.is_available():
        return None
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return f"the spec asks for no GPU, and this machine has {', '.join(names)}: resources.gpus=1 uses one"


def _gpu(gpus: float, field: str) -> torch.device:
    if not torch.cuda.is_available():
        raise ClusterError(
            f"{field}: {gpus:g} is reserved, but torch {torch.__version__} can use no GPU on {socket.gethostname()}",
            hint=f"install a CUDA build of torch and NVIDIA's driver there, or set {field}=0",
        )
    return torch.device("cuda", torch.cuda.current_device())
