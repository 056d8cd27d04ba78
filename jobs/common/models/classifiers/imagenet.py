"""torchvision's networks for ImageNet. Sources: He et al. 2016; Zagoruyko & Komodakis 2016; Szegedy et al. 2016."""

from collections.abc import Callable
from functools import partial

from torch import nn

from jobs.common.models.architectures import check_colour
from service.errors import InputError

NAMES = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "wide_resnet50_2")
INCEPTION_MEAN = INCEPTION_STD = (0.5, 0.5, 0.5)


def _build(name: str, classes: int, channels: int) -> nn.Module:
    check_colour(channels, name)
    from torchvision import models  # takes a second to load

    network: nn.Module = models.get_model(name, weights=None, num_classes=classes)
    return network


def inception_v3(classes: int, channels: int) -> nn.Module:
    """Inception-v3 for images of 299x299, untrained and without its auxiliary classifier: 2048 features."""
    check_colour(channels, "inception_v3")
    from torchvision import models

    network: nn.Module = models.inception_v3(
        weights=None, num_classes=classes, transform_input=False, init_weights=False, aux_logits=False
    )
    return network


def published_inception_v3(weights: str) -> nn.Module:
    """The same with weights by torchvision's name of them. InputError if it has none of that name."""
    from torchvision import models

    try:
        network: nn.Module = models.inception_v3(weights=weights, transform_input=False, init_weights=False)
    except KeyError as error:
        raise InputError(f"inception_v3 has no published weights {weights!r}") from error
    return network


RESNETS: dict[str, Callable[..., nn.Module]] = {name: partial(_build, name) for name in NAMES}
