"""torchvision's residual networks for ImageNet, untrained. Source: He et al. 2016; Zagoruyko & Komodakis 2016."""

from collections.abc import Callable
from functools import partial

from torch import nn

from service.errors import InputError

NAMES = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "wide_resnet50_2")


def _build(name: str, classes: int, channels: int) -> nn.Module:
    if channels != 3:
        raise InputError(f"channels: {channels} is not allowed in {name}, 3 is")
    from torchvision import models  # takes a second to load

    network: nn.Module = models.get_model(name, weights=None, num_classes=classes)
    return network


RESNETS: dict[str, Callable[..., nn.Module]] = {name: partial(_build, name) for name in NAMES}
