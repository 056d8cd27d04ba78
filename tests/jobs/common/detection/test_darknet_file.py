"""Darknet's files: written by hand, read back; too short, too long, another's, and numbers that are none."""

import struct
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from jobs.common.detection import darknet_file
from service.errors import InputError


def network(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4, eps=darknet_file.ROOT), nn.LeakyReLU(0.1)),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 5, 1),
    )
    for part in net[0][1].parameters():
        nn.init.uniform_(part, 0.5, 1.5)
    net[0][1].running_mean.normal_()
    net[0][1].running_var.uniform_(0.5, 2)
    return net.eval()


def written(net: nn.Sequential, header: bytes = struct.pack("<3iq", 0, 2, 5, 1234)) -> bytes:
    """The file of a network, as darknet's own code writes it: of each convolution its bias, its norm, its kernel."""
    (first, norm, _), _, last = net
    parts: list[Tensor] = [norm.bias, norm.weight, norm.running_mean, norm.running_var, first.weight]
    parts += [last.bias, last.weight]
    return header + b"".join(struct.pack(f"<{part.numel()}f", *part.detach().flatten().tolist()) for part in parts)


def test_every_number_is_in_its_place(tmp_path: Path) -> None:
    ours, theirs = network(0), network(1)
    (tmp_path / "net.weights").write_bytes(written(theirs))
    darknet_file.load(ours, tmp_path / "net.weights")
    images = torch.rand(2, 3, 9, 9)
    assert torch.equal(ours(images), theirs(images)) and not torch.equal(network(0)(images), theirs(images))


def changed(data: bytes, place: int, value: float) -> bytes:
    start = darknet_file.HEADER + 4 * place
    return data[:start] + struct.pack("<f", value) + data[start + 4 :]


GOOD = written(network(1))


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (GOOD[:-4], r"must have 616 bytes, those of this network; it has 612"),
        (GOOD[:-1], r"must have 616 bytes, those of this network; it has 615"),
        (GOOD + b"\0", r"must have 616 bytes, those of this network; it has 617"),
        (b"", r"must have 616 bytes, those of this network; it has 0"),
        (changed(GOOD, 7, float("nan")), "holds numbers that are not finite"),
        (changed(GOOD, 148, float("inf")), "holds numbers that are not finite"),
        (changed(GOOD, 12, -1.0), "holds a negative variance"),
        (written(network(1), struct.pack("<3iq", 0, 1, 0, 0)), "must begin with a version of darknet from 0.2 on"),
        (b"\x80\x02" + GOOD[2:], "must begin with a version of darknet"),
    ],
)
def test_damaged_and_hostile(tmp_path: Path, data: bytes, sentence: str) -> None:
    file = tmp_path / "net.weights"
    file.write_bytes(data)
    with pytest.raises(InputError, match=f"weights file '{file}' {sentence}"):
        darknet_file.load(network(0), file)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read: No such file"):
        darknet_file.load(network(0), tmp_path / "none.weights")


def test_the_norm_is_darknets() -> None:
    """It divides by the root of the variance plus 1e-6, as darknet does, also where the variance is nothing."""
    norm = nn.BatchNorm2d(3, eps=darknet_file.ROOT).eval()
    variances = torch.tensor([0.0, 1e-3, 2.0])
    norm.running_var.copy_(variances)
    values = torch.full((1, 3, 1, 1), 0.01)
    expected = 0.01 / (variances.double().sqrt() + 1e-6)
    torch.testing.assert_close(norm(values).flatten().double(), expected, rtol=5e-5, atol=0)
