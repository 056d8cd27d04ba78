"""Tiles against the whole image, their weights, and the memory that they take."""

import weakref
from collections import Counter
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from jobs.stacked_unets.networks import segmenter
from jobs.stacked_unets.prediction import PredictionParams, predict, probabilities, size_at
from jobs.stacked_unets.tiles import Tiling, strips

SMALL = Tiling(side=256, overlap=128)


def network(name: str = "plain", seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    net = segmenter(name, classes=4)
    with torch.no_grad():
        net.train()(torch.rand(4, 3, 64, 64))  # batch norm has seen something
    return net.eval()


def photograph(height: int, width: int) -> Tensor:
    """Something with structure: smooth shades and noise."""
    stream = torch.Generator().manual_seed(3)
    coarse = torch.rand(1, 3, 9, 11, generator=stream)
    smooth = nn.functional.interpolate(coarse, (height, width), mode="bicubic", align_corners=False)[0]
    return (0.8 * smooth + 0.2 * torch.rand(3, height, width, generator=stream)).clamp(0, 1)


@pytest.mark.parametrize("length", [1, 100, 256, 257, 384, 385, 511, 900, 1500])
def test_tiles_cover_every_pixel_and_their_weights_add_up_to_one(length: int) -> None:
    spans = SMALL.spans(length)
    total = torch.zeros(length)
    for start, end in spans:
        assert start % 64 == 0 and 0 < end - start <= 256
        total[start:end] += SMALL.window((start, end), length)
    torch.testing.assert_close(total, torch.ones(length))
    assert spans[0][0] == 0 and spans[-1][1] == length
    for start, end in spans:  # next to a border inside of the image nothing counts
        window = SMALL.window((start, end), length)
        assert start == 0 or not window[:32].any()
        assert end == length or not window[-32:].any()


@pytest.mark.parametrize(
    ("size", "tiling", "rows"),
    [
        ((500, 600), Tiling(side=384, overlap=192), [192, 308]),
        pytest.param((1100, 1500), Tiling(side=512, overlap=192), [320, 320, 460], marks=pytest.mark.slow),
    ],
)
def test_an_image_in_tiles_equals_the_whole(size: tuple[int, int], tiling: Tiling, rows: list[int]) -> None:
    """A network that sees 30 pixels far, and tiles whose margin is 48: equal everywhere."""
    net, image = network(), photograph(*size)
    with torch.no_grad():
        whole = net(image[None])[0]
        parts = list(strips(net, image, tiling))
    assert [part.shape[1] for part in parts] == rows
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=1e-4, atol=1e-4)


def test_a_stacked_unet_in_tiles_is_near_the_whole() -> None:
    """It sees farther than the margin: less so with more overlap; 250 pixels away from any border it is the same."""
    net, image = network("sunet_tiny"), photograph(300, 520)
    score, far = probabilities(net), []
    with torch.no_grad():
        whole = score(image[None])[0]
        for side, overlap in ((256, 64), (384, 192)):
            tiled = torch.cat(list(strips(score, image, Tiling(side=side, overlap=overlap))), dim=1)
            far.append(float((tiled - whole).abs().mean()))
    assert far[1] < 0.2 * far[0] and far[1] < 0.01
    torch.testing.assert_close(tiled[:, :64, :64], whole[:, :64, :64], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_tiles_at_once_are_the_same_tiles(batch: int) -> None:
    net, image = network(), photograph(140, 700)
    with torch.no_grad():
        one = torch.cat(list(strips(net, image, SMALL)), dim=1)
        many = torch.cat(list(strips(net, image, SMALL.model_copy(update={"batch": batch}))), dim=1)
    torch.testing.assert_close(one, many, rtol=1e-4, atol=1e-5)


class Held(TorchDispatchMode):
    """Inside of it, `peak` is the most bytes of tensors that were there at once, of those made inside."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._holders: Counter[int] = Counter()  # tensors on a memory, by its address

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                address, size = tensor.untyped_storage().data_ptr(), tensor.untyped_storage().nbytes()
                self.now += 0 if self._holders[address] else size
                self.peak = max(self.peak, self.now)
                self._holders[address] += 1
                weakref.finalize(tensor, self._released, address, size)
        return result

    def _released(self, address: int, size: int) -> None:
        self._holders[address] -= 1
        self.now -= 0 if self._holders[address] else size


def test_memory_is_that_of_one_row_of_tiles() -> None:
    """Three times the height takes as much, but for the class map; the whole image takes several times as much."""
    net = segmenter("sunet_tiny", classes=21).eval()

    def peak(height: int, side: int) -> float:
        image = torch.rand(3, height, 550)
        with Held() as held:
            predict(net, image, PredictionParams(tiling=Tiling(side=side, overlap=64)))
        return (held.peak - 2 * 5 * height * 550) / 1e6  # a byte and a float of each pixel, and when they are joined

    low, high, whole = peak(448, 256), peak(1344, 256), peak(1344, 1408)
    assert high < 1.1 * low and whole > 3 * high, (low, high, whole)


def test_one_tile_is_the_network_itself() -> None:
    net, image = network("sunet_tiny"), photograph(70, 90)
    with torch.no_grad():
        (only,) = strips(net, image, Tiling())
        assert torch.equal(only, net(image[None])[0])


def test_flipping_a_symmetric_image_changes_nothing() -> None:
    """The sum of logits of an image and of its mirror is twice a symmetric network's; here it is made symmetric."""
    net, half = network("sunet_tiny"), photograph(40, 32)
    image = torch.cat([half, half.flip(2)], dim=2)
    with torch.no_grad():
        flipped = probabilities(net, flip=True)(image[None])
        logits = net(image[None])
        torch.testing.assert_close(flipped, (logits + net(image[None].flip(3)).flip(3)).softmax(1))
        torch.testing.assert_close(flipped, flipped.flip(3))


def test_scales_average_probabilities_at_the_size_of_the_image() -> None:
    net, image = network("sunet_tiny"), photograph(48, 60)
    found = predict(net, image, PredictionParams(scales=(0.5, 1.0), base=96))
    functional, total = nn.functional, torch.zeros(1, 4, 48, 60)
    with torch.no_grad():
        for size in ((48, 60), (96, 120)):
            resized = functional.interpolate(image[None], size, mode="bilinear", antialias=True)
            total += functional.interpolate(net(resized).softmax(1), (48, 60), mode="bilinear")
    assert torch.equal(found.labels, total[0].argmax(0).to(torch.uint8))
    torch.testing.assert_close(found.confidence, total[0].amax(0) / 2)


def test_a_scale_is_of_the_shorter_side() -> None:
    assert size_at((375, 500), 0.5, 512) == (256, 341)
    assert size_at((500, 375), 1.25, None) == (625, 469)
    assert size_at((1, 1), 0.25, None) == (1, 1)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"side": 500}, "side must be a multiple of 64; it is 500"),
        ({"side": 256, "overlap": 192}, "overlap must be at most 128, half a side; it is 192"),
        ({"side": 64, "overlap": 64}, "greater than or equal to 128"),
    ],
)
def test_tiles_that_do_not_fit_are_refused(given: dict[str, int], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Tiling(**given)
