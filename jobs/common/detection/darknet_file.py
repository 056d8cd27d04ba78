"""Weights as darknet writes them: a short header, then the numbers of each convolution, one after another.

A convolution with a batch norm has its bias, scale, running mean, running variance and kernel; one without has its bias
and kernel. The file says nothing of shapes: what it is for has to be known, and every size is checked against that.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from service.errors import InputError

HEADER = 20  # bytes: a version of three numbers, and the images that were learnt from
LEAST_VERSION = 2  # 10 * major + minor, from which on the number of images takes eight bytes
ROOT = 1e-12
"""of what is added to a variance: darknet adds its root, 1e-6, to the standard deviation"""


def load(network: nn.Module, path: Path) -> None:
    """Put the weights of a file into the convolutions of a network, which are in the order of the file.

    A batch norm follows its convolution. InputError, one sentence, if the file is not there, is of another network, or
    if a number in it is not finite or a variance is negative.
    """
    where = f"weights file {str(path)!r}"
    parts = list(_parts(network))
    expected = HEADER + 4 * sum(part.numel() for part in parts)
    try:
        if (size := path.stat().st_size) != expected:
            raise InputError(f"{where} must have {expected:,} bytes, those of this network; it has {size:,}")
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{where} cannot be read: {error.strerror}") from error
    if len(data) != expected:
        raise InputError(f"{where} has changed while it was read")
    major, minor, _ = np.frombuffer(data[:12], "<i4").tolist()
    if not LEAST_VERSION <= 10 * major + minor < 1000:
        raise InputError(f"{where} must begin with a version of darknet from 0.2 on; it begins with {major}.{minor}")
    numbers = torch.from_numpy(np.frombuffer(data, "<f4", offset=HEADER).astype(np.float32))
    if not bool(torch.isfinite(numbers).all()):
        raise InputError(f"{where} holds numbers that are not finite")
    with torch.no_grad():
        for part, values in zip(parts, torch.split(numbers, [part.numel() for part in parts]), strict=True):
            part.copy_(values.view(part.shape))
    for module in network.modules():
        if (
            isinstance(module, nn.BatchNorm2d)
            and module.running_var is not None
            and bool((module.running_var < 0).any())
        ):
            raise InputError(f"{where} holds a negative variance")


def _parts(network: nn.Module) -> Iterator[Tensor]:
    """The tensors of a network in the order of the file."""
    convolutions: list[nn.Conv2d] = []
    norms: dict[int, nn.BatchNorm2d] = {}
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            convolutions.append(module)
        elif isinstance(module, nn.BatchNorm2d):
            norms[len(convolutions) - 1] = module
    for place, convolution in enumerate(convolutions):
        if (norm := norms.get(place)) is not None:
            assert norm.running_mean is not None and norm.running_var is not None
            yield from (norm.bias, norm.weight, norm.running_mean, norm.running_var)
        else:
            assert convolution.bias is not None
            yield convolution.bias
        yield convolution.weight
