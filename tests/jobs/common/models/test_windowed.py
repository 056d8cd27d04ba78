"""Passes over windows: what a whole pass gives, for every kind of layer, and only where they save something."""

import pytest
import torch
from torch import Tensor, nn

from jobs.common.attacks.prepared import prepared
from jobs.common.models import graph
from jobs.common.models.classifiers import classifier
from jobs.common.models.classifiers.normalisation import PerChannel, PerImage
from jobs.common.models.inference import ChannelsLast
from jobs.common.models.windowed import Windowed, windowed


class Mixed(nn.Module):
    """Constants, a shortcut that skips pixels, dilation, pooling with a rest, groups, two maps read at the end."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Sequential(PerChannel([0.4] * channels, [0.2] * channels), nn.Conv2d(channels, 8, 5, padding=2))
        self.skip = nn.Conv2d(8, 8, 1, stride=3)
        self.reduce = nn.Conv2d(8, 8, (3, 2), stride=3, padding=1, dilation=(1, 2), bias=False)
        self.norm, self.pool = nn.BatchNorm2d(8), nn.AvgPool2d((2, 3), (2, 1))
        self.grouped, self.last = nn.Conv2d(8, 8, 3, padding=1, groups=2), nn.Linear(16, 5)

    def forward(self, images: Tensor) -> Tensor:
        features = torch.relu(self.first(images))
        features = self.norm(self.reduce(features) + self.skip(features))
        features = self.pool(nn.functional.relu(features * 2 + 0.1, inplace=True))
        features = features + features.tanh()
        both = [self.grouped(features), features]
        return self.last(torch.cat([each.amax((2, 3)) for each in both], 1))  # type: ignore[no-any-return]


def network(name: str, channels: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if name == "per image":  # all positions are mixed at once
            return nn.Sequential(PerImage(), nn.Conv2d(channels, 4, 3), nn.Flatten(), nn.LazyLinear(5))
        return Mixed(channels) if name == "mixed" else classifier(name, channels=channels)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize(
    ("name", "channels", "side"),
    [("colour_net", 3, 32), ("mixed", 3, 20), ("mixed", 1, 17), ("resnet20", 3, 8), ("trades_mnist", 1, 28)]
    + [("digits_net", 1, 8), ("per image", 3, 12)],
)
@torch.no_grad()
def test_the_same_as_whole_passes(name: str, channels: int, side: int, fused: bool) -> None:
    """After windows of all sizes and places, of which some images keep theirs, and after images have left."""
    stream = torch.Generator().manual_seed(0)
    net = network(name, channels)
    images = torch.rand(5, channels, side, side, generator=stream)
    net(images)  # statistics that are not 0 and 1
    net.eval()
    model = prepared(net, images[:2]) if fused else net.double()
    part = model.network if isinstance(model, ChannelsLast) else model if fused else graph.trace(net)
    if not fused:
        images = images.double()
    assert isinstance(part, torch.fx.GraphModule)
    passes = Windowed(part, images)
    for number in range(40):
        height, width = torch.randint(1, max(2, side if number % 2 else side // 4), (2,), generator=stream).tolist()
        row, column = (int(torch.randint(side - each + 1, (1,), generator=stream)) for each in (height, width))
        changed = images.clone()
        window = changed[..., row : row + height, column : column + width]
        window.copy_(torch.rand(window.shape, generator=stream))
        logits = passes.logits((row, row + height), (column, column + width), changed)
        torch.testing.assert_close(logits, model(changed), rtol=1e-4 if fused else 1e-9, atol=1e-4 if fused else 1e-9)
        better = torch.rand(len(images), generator=stream) < (0.4 if number % 3 else 0)
        images = torch.where(better.view(-1, 1, 1, 1), changed, images)
        if better.any():
            passes.accept(better)
        else:
            passes.reject()
        if number in (15, 30):
            keep = torch.arange(len(images)) != 1
            images = images[keep]
            passes.keep(keep)


def test_only_where_they_save() -> None:
    part = graph.trace(network("colour_net", 3).eval())
    assert part is not None
    images = torch.zeros(8, 3, 32, 32)
    assert windowed(part, images, 4) is not None
    assert windowed(part, images, 28) is None, "a large window"
    assert windowed(part, images[:1], 4) is None, "one image"
    deep = graph.trace(network("resnet20", 3).eval())
    assert deep is not None and windowed(deep, images, 4) is None, "a window that soon reaches most features"
