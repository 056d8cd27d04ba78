"""What a problem is: instances of any size, what counts, and a verifier that needs no answer key."""

from typing import Protocol

import numpy as np
from torch import Tensor


class Problem(Protocol):
    """A problem with one binary answer per position, in instances of any size.

    `space` is (length,) for one dimension and (height, width) for two.
    """

    name: str
    channels: int
    """of the input"""
    dimensions: int
    """1 or 2"""
    sizes: str
    """what a size counts, for axis labels: "bits", "cells" …"""

    def check_size(self, size: int) -> None:
        """InputError, one sentence, if there are no instances of this size."""

    def sample(self, size: int, count: int, seed: int) -> tuple[Tensor, Tensor]:
        """Instances that depend on the arguments alone.

        Returns inputs float32 (count, channels, *space) and targets int64 in {0, 1} (count, *space).
        """

    def counted(self, inputs: Tensor) -> Tensor:
        """The positions that enter loss and verdict: bool (count, *space). The answer elsewhere is 0."""

    def verify(self, inputs: Tensor, predictions: Tensor) -> Tensor:
        """Whether each prediction solves its instance, found without the target. Returns bool (count,)."""

    def check_inputs(self, inputs: Tensor) -> list[str | None]:
        """For each instance None, or one sentence why it has no answer."""

    def warnings(self, inputs: Tensor) -> list[str | None]:
        """For each instance None, or one sentence why trained networks may fail on it though it has an answer."""

    def picture(self, instance: Tensor, prediction: Tensor | None) -> np.ndarray:
        """One instance (channels, *space) with an answer (*space) drawn into it: uint8 (height, width, 3)."""
