"""The largest batch that fits the memory of a GPU, where results do not depend on the batch but for rounding.

It is a power of two, found by trying, and fits a share of the memory of the whole card: so the same network has the
same batch on the same kind of card, whatever else is there at that moment. `passes` asks for it wherever a network goes
over a set. Where results depend on the batch, as in training and in attacks that draw random numbers for each batch, it
is a parameter and stays what the spec says.
"""

from collections.abc import Callable

import torch

SHARE = 0.4  # of the memory of a card: two trials may share one, each with its network and data besides
Attempt = Callable[[int], object]
"""works on a batch of so many, or of all if there are fewer"""


def largest_batch(attempt: Attempt, count: int, device: torch.device, share: float = SHARE) -> int:
    """The largest power of two whose batch takes no more than a share of a GPU's memory, or the first that holds all.

    attempt: it is called with rising numbers, and may run out of memory. count: of all there are. device: a GPU. What
    lies on the GPU before an attempt is not counted. At least 1.
    """
    limit = int(share * torch.cuda.get_device_properties(device).total_memory)
    return largest_within(attempt, count, limit, lambda act: _peak(act, device))


def largest_within(attempt: Attempt, count: int, limit: int, peak: Callable[[Callable[[], object]], int]) -> int:
    """The same for a limit in bytes.

    peak: calls what it is given, and says how many bytes were taken at most meanwhile; torch.OutOfMemoryError where
    there were too few.
    """
    fits, size = 1, 1
    while size < 2 * count:
        try:
            taken = peak(lambda size=size: attempt(size))  # type: ignore[misc]
        except torch.OutOfMemoryError:
            break
        if taken > limit:
            break
        fits, size = size, 2 * size
    return fits


def _peak(act: Callable[[], object], device: torch.device) -> int:
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    try:
        act()
        return torch.cuda.max_memory_allocated(device) - before
    finally:
        torch.cuda.empty_cache()
