"""Networks that listen, by name. Each maps sounds (batch, samples) in [-1, 1] to logits, and shows its layers."""

from collections.abc import Callable

from torch import nn

from jobs.common.audio.networks.recogniser import Recogniser

ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {"recogniser": Recogniser}
