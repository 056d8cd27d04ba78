"""A network over a set, batch by batch, where results depend on the batch by rounding alone.

    classes = outputs(network, images, lambda logits: logits.argmax(1), on_cpu=256)
    for part in passes(act, len(images), network, images.shape[1:], purpose="gradients", on_cpu=256):   # act: rows -> …

On a CPU a batch is what the caller says. On a GPU it is the largest that fits (batch_size.py), which each worker finds
once for a network, a purpose and the shape of an input, and notes in the run.
"""

from collections.abc import Callable, Hashable, Iterator
from typing import TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from jobs.common.batch_size import largest_batch
from jobs.common.training.optimizers import device_of
from service.run import remarks

Result = TypeVar("Result")
Act = Callable[[slice], Result]
"""makes something of some rows of a set, and changes nothing else"""


class Batches:
    """So many rows at once. Where these are too many after all, because others took memory, once fewer."""

    def __init__(self, size: int, purpose: str, largest: bool = True, may_shrink: bool = True) -> None:
        """purpose: for sentences. largest: whether more would not fit. may_shrink: else there is no second try."""
        self.size, self.largest = size, largest
        self._purpose, self._may_shrink = purpose, may_shrink

    def over(self, act: Act[Result], count: int) -> Iterator[Result]:
        """What is made of each batch of so many rows, in order; of none it is one batch without rows.

        torch.OutOfMemoryError if fewer rows do not help.
        """
        first = 0
        while first < max(1, count):
            rows = slice(first, min(first + self.size, count))
            try:
                result = act(rows)
            except torch.OutOfMemoryError:
                if not self._may_shrink or rows.stop - first < 2:
                    raise
                self._shrink(rows.stop - first)
            else:
                yield result
                first = max(1, rows.stop)

    def _shrink(self, rows: int) -> None:
        """To the next power of two below what was too much."""
        self.size = 1 << ((rows - 1).bit_length() - 1)
        self.largest, self._may_shrink = True, False
        remarks.warn(
            f"{self._purpose}: memory ran out at {rows:,} at once, others may have taken it; batches of {self.size:,} "
            "from there"
        )


_found: WeakKeyDictionary[nn.Module, dict[Hashable, Batches]] = WeakKeyDictionary()
"""on a GPU, by purpose and what the memory depends on"""


def passes(
    act: Act[Result], count: int, network: nn.Module, like: Hashable, *, purpose: str, on_cpu: int
) -> Iterator[Result]:
    """What `act` makes of each batch of a set of so many, in order.

    network: what act runs, on its device. like: what else the memory of a row depends on, such as the shape of an
    input. purpose: what the rows are for, in a sentence. on_cpu: rows of a batch on a CPU.
    """
    device = device_of(network)
    if device.type == "cpu" or not count:
        return Batches(on_cpu, purpose).over(act, count)
    found, key = _found.setdefault(network, {}), (purpose, like)
    batches = found.get(key)
    if batches is None or (count > batches.size and not batches.largest):
        size = largest_batch(lambda size: act(slice(0, min(size, count))), count, device)
        batches = found[key] = Batches(size, purpose, largest=size < count)
    remarks.note(f"{purpose} in batches of {batches.size:,}, found to fit the GPU")  # maybe for a run before
    return batches.over(act, count)


def outputs(
    network: nn.Module,
    inputs: Tensor,
    read: Callable[[Tensor], Tensor] = lambda outputs: outputs,
    *,
    on_cpu: int,
    purpose: str = "predictions",
) -> Tensor:
    """What is read off the outputs of a network in evaluation mode, without gradients, for all inputs: on the CPU.

    inputs: (count, ...), anywhere. read: from outputs (batch, ...) to a row for each. As in `passes`.
    """
    device = device_of(network)

    @torch.no_grad()
    def act(rows: slice) -> Tensor:
        return read(network(inputs[rows].to(device))).cpu()

    return torch.cat(list(passes(act, len(inputs), network, inputs.shape[1:], purpose=purpose, on_cpu=on_cpu)))
