"""Prefix sums modulo 2: for every bit, the parity of all bits up to it.

Source: Schwarzschild et al. 2021, section 3.1; inputs are bit - 1/2.
"""

import numpy as np
import torch
from torch import Tensor

from service.errors import FieldError

DISTINCT_BELOW = 24  # bits; shorter strings of one sample are all different
LONGEST = 1 << 20
_CELL = 12  # pixels of a bit in a picture


class PrefixSums:
    """Strings of bits. The size is their length."""

    name = "prefix_sums"
    channels = 1
    dimensions = 1
    sizes = "bits"

    def check_size(self, size: int) -> None:
        if not 1 <= size <= LONGEST:
            raise FieldError("size", f"be from 1 to {LONGEST:,} bits", size)

    def sample(self, size: int, count: int, seed: int) -> tuple[Tensor, Tensor]:
        """Fair bits. Strings shorter than 24 bits are drawn without repeats, as long as there are enough of them."""
        self.check_size(size)
        stream = np.random.default_rng(seed)
        if size < DISTINCT_BELOW and count <= 2**size:
            numbers = stream.choice(2**size, size=count, replace=False)
            bits = torch.from_numpy((numbers[:, None] >> np.arange(size)) & 1)
        else:
            bits = torch.from_numpy(stream.integers(0, 2, size=(count, size)))
        return bits.unsqueeze(1).float() - 0.5, bits.cumsum(1) % 2

    def counted(self, inputs: Tensor) -> Tensor:
        return torch.ones(inputs.shape[0], *inputs.shape[2:], dtype=torch.bool, device=inputs.device)

    def verify(self, inputs: Tensor, predictions: Tensor) -> Tensor:
        """The exact scan: one pass over the bits."""
        # in numpy, as requests are answered one by one, and it takes a fraction of the time for few numbers
        parities = np.logical_xor.accumulate(inputs.numpy(force=True)[:, 0] > 0, -1)
        right = (parities == predictions.numpy(force=True)).all(-1)
        return torch.from_numpy(right).to(inputs.device)

    def check_inputs(self, inputs: Tensor) -> list[str | None]:
        clean = (np.abs(inputs.numpy(force=True)) == 0.5).all((1, 2)).tolist()
        return [None if fine else "a bit is -0.5 (0) or 0.5 (1), and this string holds another value" for fine in clean]

    def warnings(self, inputs: Tensor) -> list[str | None]:
        return [None] * inputs.shape[0]

    def picture(self, instance: Tensor, prediction: Tensor | None) -> np.ndarray:
        """Bits in the first row, the answer (if there is one) in the second: 1 is dark."""
        rows = [(instance[0] > 0).long()] + ([] if prediction is None else [prediction])
        grey = 255 - 215 * torch.stack(rows).cpu().numpy().astype(np.uint8)
        return np.repeat(grey.repeat(_CELL, 0).repeat(_CELL, 1)[..., None], 3, axis=2)
