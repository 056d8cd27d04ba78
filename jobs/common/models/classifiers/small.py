"""Small networks that train in seconds to minutes on one core."""

from torch import nn

from service.errors import FieldError


def _block(channels_in: int, channels_out: int, stride: int) -> list[nn.Module]:
    convolution = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(channels_out), nn.ReLU()]


def _check_side(side: int, least: int) -> None:
    if side < least:
        raise FieldError("side", f"be at least {least}", side)


def digits_net(classes: int, channels: int, width: int = 8) -> nn.Module:
    """For images of 8x8: three convolutions with batch norm, 2x2 means, one linear layer. width: channels at first."""
    return nn.Sequential(
        *_block(channels, width, 1),
        *_block(width, 2 * width, 2),
        *_block(2 * width, 2 * width, 2),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(8 * width, classes),
    )


def digits_16_net(classes: int, channels: int, side: int = 16, size: int = 512) -> nn.Module:
    """Two 3x3 convolutions with max pooling and two linear layers. side: in pixels. size: of the features."""
    _check_side(side, 4)
    return nn.Sequential(
        *(nn.Conv2d(channels, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        nn.Flatten(),
        *(nn.Linear(64 * (side // 4) ** 2, size), nn.ReLU()),
        nn.Linear(size, classes),
    )


def softmax_regression(classes: int, channels: int, side: int = 8) -> nn.Module:
    """One linear layer. side: of the images, in pixels."""
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * side**2, classes))


def mlp(classes: int, channels: int, side: int = 8, width: int = 128) -> nn.Module:
    """Two hidden linear layers. side: of the images, in pixels."""
    return nn.Sequential(
        nn.Flatten(),
        *(nn.Linear(channels * side**2, width), nn.ReLU()),
        *(nn.Linear(width, width), nn.ReLU()),
        nn.Linear(width, classes),
    )


def stem_net(classes: int, channels: int, scale: int = 1, width: int = 8) -> nn.Module:
    """For images of 8x8 whose pixels may be replicated `scale` times in each direction: three convolutions, one linear.

    The kernel and the stride of the first one grow with the scale, so that the layers after it are the same for all.
    """
    return nn.Sequential(
        *(nn.Conv2d(channels, width, 3 * scale, stride=scale, padding=scale), nn.ReLU()),
        *(nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), nn.ReLU()),
        *(nn.Conv2d(2 * width, 2 * width, 3, stride=2, padding=1), nn.ReLU()),
        nn.Flatten(),
        nn.Linear(8 * width, classes),
    )


def fast_mnist(classes: int, channels: int, width: int = 16, side: int = 28) -> nn.Module:
    """Two 4x4 convolutions of stride 2 and two linear layers (Wong et al. 2020, section 4.1). side: in pixels."""
    _check_side(side, 4)
    return nn.Sequential(
        *(nn.Conv2d(channels, width, 4, stride=2, padding=1), nn.ReLU()),
        *(nn.Conv2d(width, 2 * width, 4, stride=2, padding=1), nn.ReLU()),
        nn.Flatten(),
        *(nn.Linear(2 * width * (side // 4) ** 2, 100), nn.ReLU()),
        nn.Linear(100, classes),
    )


def madry_mnist(classes: int, channels: int, width: int = 32, side: int = 28) -> nn.Module:
    """Two 5x5 convolutions with max pooling and two linear layers (Madry et al. 2018, code). side: in pixels."""
    return nn.Sequential(
        *(nn.Conv2d(channels, width, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True)),
        *(nn.Conv2d(width, 2 * width, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True)),
        nn.Flatten(),
        *(nn.Linear(2 * width * (-(-side // 4)) ** 2, 1024), nn.ReLU()),
        nn.Linear(1024, classes),
    )


def trades_mnist(classes: int, channels: int, width: int = 32, side: int = 28) -> nn.Module:
    """Four 3x3 convolutions without padding, dropout: SmallCNN (Zhang et al. 2019, code). side: in pixels."""
    _check_side(side, 14)
    last = ((side - 4) // 2 - 4) // 2  # of the features, after two convolutions and a pooling, twice
    return nn.Sequential(
        *(nn.Conv2d(channels, width, 3), nn.ReLU(), nn.Conv2d(width, width, 3), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(width, 2 * width, 3), nn.ReLU(), nn.Conv2d(2 * width, 2 * width, 3), nn.ReLU(), nn.MaxPool2d(2)),
        nn.Flatten(),
        *(nn.Linear(2 * width * last**2, 200), nn.ReLU(), nn.Dropout(0.5)),
        *(nn.Linear(200, 200), nn.ReLU()),
        nn.Linear(200, classes),
    )


def colour_net(classes: int, channels: int, width: int = 32) -> nn.Module:
    """For images of 32x32: three convolutions of stride 2 with batch norm, the mean, one linear layer."""
    return nn.Sequential(
        *_block(channels, width, 2),
        *_block(width, 2 * width, 2),
        *_block(2 * width, 4 * width, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4 * width, classes),
    )
