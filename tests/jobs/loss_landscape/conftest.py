"""Images for small networks."""

import pytest
import torch
from torch import Tensor


@pytest.fixture
def points() -> tuple[Tensor, Tensor]:
    """40 images (40, 1, 8, 8), channels last, and their labels."""
    stream = torch.Generator().manual_seed(1)
    images = torch.rand(40, 1, 8, 8, generator=stream).contiguous(memory_format=torch.channels_last)
    return images, torch.randint(0, 10, (40,), generator=stream)
