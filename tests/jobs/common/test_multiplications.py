"""The counter of multiplications against counts by hand."""

import torch
from torch import nn

from jobs.common.multiplications import CountMacs


def test_the_work_of_other_layers_is_counted() -> None:
    layers = nn.Sequential(
        nn.Linear(5, 7), nn.Unflatten(1, (7, 1)), nn.ConvTranspose1d(7, 6, 3), nn.Conv1d(6, 4, 3, groups=2)
    )
    with torch.no_grad(), CountMacs() as counter:
        layers(torch.zeros(3, 5)) @ torch.zeros(1, 2)
    assert counter.total == 3 * 5 * 7 + 3 * 7 * 6 * 3 + 3 * 4 * 3 * 3 + 3 * 4 * 1 * 2
    assert [layer.numbers for layer in counter.layers[:2]] == [3 * (5 + 7), 3 * (7 + 6 * 3)]
