"""Small networks whose batch norm has seen images, and images for them."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from jobs.common.models.classifiers import classifier


@pytest.fixture
def make_network() -> Callable[..., nn.Module]:
    """A classifier in evaluation mode with statistics and weights of batch norm that are not those of the start."""

    def make(name: str = "cifar_resnet", side: int = 8, channels: int = 1, **options: object) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = classifier(name, classes=10, channels=channels, **options)
            for module in network.modules():
                if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                    nn.init.uniform_(module.weight, 0.5, 1.5)
                    nn.init.normal_(module.bias, std=0.1)
            network.train()(torch.rand(32, channels, side, side))
        return network.eval()

    return make


@pytest.fixture
def points() -> tuple[Tensor, Tensor]:
    """40 images (40, 1, 8, 8), channels last, and their labels."""
    stream = torch.Generator().manual_seed(1)
    images = torch.rand(40, 1, 8, 8, generator=stream).contiguous(memory_format=torch.channels_last)
    return images, torch.randint(0, 10, (40,), generator=stream)
