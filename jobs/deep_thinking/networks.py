"""Networks that think: projection, a recurrent block applied again and again, head; and their feed-forward twins.

Source: Schwarzschild et al. 2021 (recurrent network), Bansal et al. 2022 (recall), with the layers of the code released
with the latter. All convolutions have kernel 3, stride 1, padding 1 and no bias. A string is convolved as an image of
height one: 2-D convolutions with channels last are the faster ones.

Every network has the same interface, which a network of the user's own must offer too:

    start(inputs) -> features                      inputs (batch, channels, *space), features of any shape
    step(features, inputs, iteration) -> features  one iteration of thought, counted from 0
    answer(features) -> logits                     (batch, 2, *space)
    forward(inputs, iterations, features=None, elapsed=0) -> (logits, features)
    max_iterations: int | None                     None: as many as one likes
    compiled_parts() -> list of modules            what engine.compile compiles; without it, all for each count of them
"""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from jobs.common.models.architectures import build_network
from service.errors import FieldError, InputError

GROUPS = 4  # of the group-norm variant


def _convolution(dimensions: int, channels_in: int, channels_out: int) -> nn.Module:
    kernel, padding = ((1, 3), (0, 1)) if dimensions == 1 else ((3, 3), (1, 1))
    return nn.Conv2d(channels_in, channels_out, kernel, padding=padding, bias=False)


class ResidualBlock(nn.Module):
    """ReLU(conv(ReLU(conv(x))) + x), optionally with group norm after each convolution."""

    def __init__(self, dimensions: int, width: int, group_norm: bool) -> None:
        super().__init__()
        self.conv1 = _convolution(dimensions, width, width)
        self.conv2 = _convolution(dimensions, width, width)
        self.group_norm = group_norm

    def forward(self, features: Tensor) -> Tensor:
        inner = functional.relu(self._norm(self.conv1(features)))
        return functional.relu(self._norm(self.conv2(inner)) + features)

    def _norm(self, features: Tensor) -> Tensor:
        return functional.group_norm(features, GROUPS) if self.group_norm else features


class Thinker(nn.Module):
    """Projection, head and the loop between them. What an iteration is, its children say."""

    max_iterations: int | None = None

    def __init__(self, dimensions: int, channels: int, width: int) -> None:
        super().__init__()
        self.dimensions = dimensions
        hidden = (width, width // 2) if dimensions == 1 else (32, 8)
        self.projection = _convolution(dimensions, channels, width)
        self.head = nn.Sequential(
            _convolution(dimensions, width, hidden[0]),
            nn.ReLU(),
            _convolution(dimensions, hidden[0], hidden[1]),
            nn.ReLU(),
            _convolution(dimensions, hidden[1], 2),
        )

    def released_layers(self) -> Iterator[str]:
        """The names of the layers in the code released with Bansal et al. 2022, in the order of this network's."""
        yield from ("projection.0", "head.0", "head.2", "head.4")

    def start(self, inputs: Tensor) -> Tensor:
        """The features before the first iteration: (batch, width, height, width of the image)."""
        return functional.relu(self.projection(self.image(inputs)))

    def image(self, inputs: Tensor) -> Tensor:
        """The inputs as images: (batch, channels, height, width). A string is one of height 1.

        Channels last, even a single one: what is made of features and one of another layout has to be laid out anew.
        """
        images = inputs.unsqueeze(2) if self.dimensions == 1 else inputs
        return images.clone(memory_format=torch.channels_last)

    @abstractmethod
    def step(self, features: Tensor, inputs: Tensor, iteration: int) -> Tensor:
        """One iteration of thought, `iteration` counted from 0."""

    @abstractmethod
    def iterated(self) -> list[nn.Module]:
        """The residual blocks of an iteration, or of each."""

    def compiled_parts(self) -> list[nn.Module]:
        """Iterations one by one: how many there are differs between updates."""
        return [*self.iterated(), self.head]

    def answer(self, features: Tensor) -> Tensor:
        """Logits of the two classes at every position: (batch, 2, *space)."""
        logits: Tensor = self.head(features)
        return logits.squeeze(2) if self.dimensions == 1 else logits

    def forward(
        self, inputs: Tensor, iterations: int, features: Tensor | None = None, elapsed: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Think for `iterations` after `elapsed` ones that made `features`. Returns the last logits and features."""
        if self.max_iterations is not None and elapsed + iterations > self.max_iterations:
            raise FieldError(
                "iterations", f"be at most {self.max_iterations}, the depth of this network", elapsed + iterations
            )
        features = self.start(inputs) if features is None else features
        for iteration in range(elapsed, elapsed + iterations):
            features = self.step(features, inputs, iteration)
        return self.answer(features), features


class DeepThinkingNet(Thinker):
    """A recurrent network: the same two residual blocks at every iteration, with or without recall of the inputs."""

    def __init__(self, dimensions: int, channels: int, width: int, recall: bool, group_norm: bool) -> None:
        super().__init__(dimensions, channels, width)
        self.relu_after_recall = dimensions == 1  # the 2-D network has none there
        blocks = nn.Sequential(*[ResidualBlock(dimensions, width, group_norm) for _ in range(2)])
        self.recurrent = nn.ModuleDict({"blocks": blocks})
        if recall:
            self.recurrent["recall"] = _convolution(dimensions, width + channels, width)
        self.recall = recall

    def released_layers(self) -> Iterator[str]:
        yield from super().released_layers()
        before = self.recall * (1 + self.relu_after_recall)  # layers in the released block, which has these first
        for block, _ in self.recurrent["blocks"].named_children():
            yield from (f"recur_block.{before}.{block}.{name}" for name in ("conv1", "conv2"))
        if self.recall:
            yield "recur_block.0"

    def iterated(self) -> list[nn.Module]:
        return [self.recurrent["blocks"]]

    def step(self, features: Tensor, inputs: Tensor, iteration: int) -> Tensor:
        if self.recall:
            features = self.recurrent["recall"](torch.cat([features, self.image(inputs)], dim=1))
            if self.relu_after_recall:
                features = functional.relu(features)
        after: Tensor = self.recurrent["blocks"](features)
        return after


class FeedForwardNet(Thinker):
    """The same depth without recurrence: every iteration has residual blocks of its own.

    With recall, one recall convolution, without ReLU after it, is shared by all iterations.
    """

    def __init__(
        self, dimensions: int, channels: int, width: int, recall: bool, group_norm: bool, max_iterations: int
    ) -> None:
        super().__init__(dimensions, channels, width)
        self.max_iterations = max_iterations
        self.groups = nn.ModuleList(
            nn.Sequential(*[ResidualBlock(dimensions, width, group_norm) for _ in range(2)])
            for _ in range(max_iterations)
        )
        self.recall_layer = _convolution(dimensions, width + channels, width) if recall else None

    def released_layers(self) -> Iterator[str]:
        yield from super().released_layers()
        for iteration, blocks in enumerate(self.groups):
            for block, _ in blocks.named_children():
                yield from (f"feedforward_layers.{iteration}.0.{block}.{name}" for name in ("conv1", "conv2"))
        if self.recall_layer is not None:
            yield "recall_layer"

    def iterated(self) -> list[nn.Module]:
        return list(self.groups)

    def step(self, features: Tensor, inputs: Tensor, iteration: int) -> Tensor:
        if self.recall_layer is not None:
            features = self.recall_layer(torch.cat([features, self.image(inputs)], dim=1))
        after: Tensor = self.groups[iteration](features)
        return after


def _deep_thinking(dimensions: int) -> Callable[..., nn.Module]:
    def build(channels: int, width: int, recall: bool = True, group_norm: bool = False) -> nn.Module:
        _check_width(width, group_norm)
        net = DeepThinkingNet(dimensions, channels, width, recall, group_norm)
        return net.to(memory_format=torch.channels_last)

    return build


def _feed_forward(dimensions: int) -> Callable[..., nn.Module]:
    def build(
        channels: int, width: int, recall: bool = True, group_norm: bool = False, max_iterations: int = 30
    ) -> nn.Module:
        _check_width(width, group_norm)
        net = FeedForwardNet(dimensions, channels, width, recall, group_norm, max_iterations)
        return net.to(memory_format=torch.channels_last)

    return build


def _check_width(width: int, group_norm: bool) -> None:
    if width < 2 or (group_norm and width % GROUPS):
        raise FieldError("width", f"be at least 2, and with group norm a multiple of {GROUPS}", width)


ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    "dt_net_1d": _deep_thinking(1),
    "dt_net_2d": _deep_thinking(2),
    "feed_forward_1d": _feed_forward(1),
    "feed_forward_2d": _feed_forward(2),
}


def network(name: str, **arguments: Any) -> Thinker:
    """Build a network by its name in ARCHITECTURES or by import path. InputError if its interface lacks something."""
    built = build_network(name, ARCHITECTURES, "network", **arguments)
    lacking = [part for part in ("start", "step", "answer", "forward") if not callable(getattr(built, part, None))]
    if not hasattr(built, "max_iterations"):
        lacking.append("max_iterations")
    if lacking:
        raise InputError(f"network {name!r} lacks {', '.join(lacking)}")
    return cast(Thinker, built)
