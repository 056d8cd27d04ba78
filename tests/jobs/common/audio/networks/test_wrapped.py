"""Modules of the user's own as networks that listen."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from jobs.common.audio.networks.wrapped import WrappedNetwork
from service.errors import InputError


class Own(nn.Module):
    """Convolutions, a picture of bands and frames, a transformer layer and a recurrent one."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.filters = nn.Conv1d(1, 6, 50, 25)
        self.picture = nn.Conv2d(1, 5, 3, padding=1)
        self.mix = nn.TransformerEncoderLayer(6, 2, 12, batch_first=True)
        self.memory = nn.GRU(6, 7, batch_first=True)
        self.last = nn.Linear(7, 3)
        self.unused = nn.Linear(2, 2)

    def forward(self, sounds: Tensor) -> Tensor:
        features = self.filters(sounds[:, None]).relu()  # (batch, 6, frames)
        self.picture(features[:, None])
        self.calls.append("deep")
        states, _ = self.memory(self.mix(features.transpose(1, 2)))
        answer: Tensor = self.last(states[:, -1])
        return answer


def test_layers_are_modules_with_rows() -> None:
    network = WrappedNetwork(Own().eval(), 8000, shortest=50).eval()
    assert {"filters", "picture", "mix", "mix.linear1", "memory", "last", "output"} <= set(network.layers)
    assert "unused" not in network.layers and network.layers[0] == "filters" and network.layers[-1] == "output"
    assert network.rate == 8000 and network.classes == ("0", "1", "2")
    sounds = 0.1 * torch.randn(2, 1000)
    answers = network.activations(sounds, ["filters", "picture", "mix", "memory", "output"])
    frames = (1000 - 50) // 25 + 1
    shapes = {name: tuple(each.shape) for name, each in answers.items()}
    assert shapes == {
        **{"filters": (2, 6, frames), "picture": (2, 5, frames), "mix": (2, 6, frames)},
        **{"memory": (2, 7, frames), "output": (2, 3, 1)},
    }
    own = network.network
    torch.testing.assert_close(answers["filters"], own.filters(sounds[:, None]))  # type: ignore[operator, union-attr]
    torch.testing.assert_close(network(sounds), own(sounds))


def test_nothing_deeper_is_computed() -> None:
    own = Own().eval()
    network = WrappedNetwork(own, 8000)
    own.calls.clear()
    network.activations(torch.zeros(1, 100), ["filters"])
    assert own.calls == []
    assert not any(module._forward_hooks for module in own.modules()), "no hook is left"


class InNumpy(nn.Module):
    def forward(self, sounds: Tensor) -> Tensor:
        return torch.from_numpy(np.abs(np.fft.rfft(sounds.detach().numpy())))[:, :, None].float()


def test_a_module_that_cannot_be_called_with_a_layer() -> None:
    network = WrappedNetwork(InNumpy(), 8000)
    with pytest.raises(InputError, match="listens to sounds alone, not to what its layer 'output' answers"):
        network.activations(torch.zeros(1, 10), ["output"], after="output")


@pytest.mark.parametrize(
    ("module", "sentence"),
    [
        (
            nn.Linear(7, 2),
            r"must take sounds \(batch, samples\) at 8,000 samples a second; on \(2, 8000\) it fails: mat1",
        ),
        (nn.Flatten(0), r"must return a row for each of \(2, 8000\); it does not"),
    ],
)
def test_modules_that_do_not_listen(module: nn.Module, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        WrappedNetwork(module, 8000)
