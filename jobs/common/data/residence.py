"""Training sets that are kept on a GPU: no batch of them has to travel there."""

from typing import Any, TypeVar

import torch

from jobs.common.data.images.base import Pixels
from jobs.common.data.images.relabelled import Relabelled
from jobs.common.data.masks.base import Pairs
from jobs.common.data.sets import Subset

SHARE = 0.5  # of the free memory of a GPU that a training set may take: the rest is for training
AnySet = TypeVar("AnySet")


def resident(images: AnySet, device: torch.device) -> AnySet:
    """The same set with its pixels and labels on the device, if these are in memory and there is room for them.

    Any other set stays as it is: files are decoded on the CPU.
    """
    kept: Any = images
    match images:
        case Subset():
            kept = type(images)(resident(images.whole, device), images.indices)
        case Relabelled():
            kept = Relabelled(resident(images.whole, device), images.classes)
        case Pixels() | Pairs() if fits(images.bytes, device):
            kept = images.to(device)
    return kept  # type: ignore[no-any-return]


def fits(size: int, device: torch.device) -> bool:
    """Whether so many bytes are to be kept on the device. Everything fits beside a CPU."""
    return device.type == "cpu" or size <= SHARE * torch.cuda.mem_get_info(device)[0]
