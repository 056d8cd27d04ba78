"""A small neural fingerprint: one second of music as a point on a sphere, near to that of the same second distorted.

In the manner of Chang et al. 2021, "Neural audio fingerprint for high-specific audio retrieval based on contrastive
learning" (ICASSP, arXiv 2010.11910): separable convolutions on a log-mel spectrogram, a head that divides and encodes,
and the loss NT-Xent; about a twentieth of its size, on a quarter of its mel bands.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from jobs.common.audio.mel import LogMel
from service.errors import FieldError

RATE = 8_000
SEGMENT, HOP = RATE, RATE // 2  # samples that one point stands for, and between two of them
BANDS, SIZE, FRAME = 64, 1024, 256
RANGE = 8 * math.log(10)  # natural logarithms of power, 80 dB, below the loudest, that are looked at
CHANNELS = (24, 48, 96, 96, 192, 192)
TEMPERATURE = 0.05


class Encoder(nn.Module):
    """Segments as points. Each one's point depends on that segment alone."""

    def __init__(self, width: int = 64) -> None:
        """width: of a point. FieldError unless it divides the channels of the last layer."""
        super().__init__()
        if width < 1 or CHANNELS[-1] % width:
            raise FieldError("width", f"divide {CHANNELS[-1]}, the channels of the last layer", width)
        self.width = width
        self.mel = LogMel(RATE, BANDS, SIZE, SIZE, FRAME)
        layers: list[nn.Module] = []
        inside = 1
        for channels in CHANNELS:
            layers += [
                nn.Conv2d(inside, channels, (1, 3), stride=(1, 2), padding=(0, 1)),
                nn.GroupNorm(1, channels),
                nn.ELU(),
                nn.Conv2d(channels, channels, (3, 1), stride=(2, 1), padding=(1, 0)),
                nn.GroupNorm(1, channels),
                nn.ELU(),
            ]
            inside = channels
        self.layers = nn.Sequential(*layers)
        part = CHANNELS[-1] // width
        self.divided = nn.Conv1d(
            width * part, width * 32, 1, groups=width
        )  # each number has a small network of its own
        self.encoded = nn.Conv1d(width * 32, width, 1, groups=width)

    def forward(self, segments: Tensor) -> Tensor:
        """segments: float (batch, 8000) at 8 kHz. Returns (batch, width) of length 1."""
        mels = self.mel(segments)  # (batch, bands, frames)
        relative = (mels - mels.amax((1, 2), keepdim=True)).clamp(min=-RANGE)  # loudness is taken away
        features = self.layers(2 * relative[:, None] / RANGE + 1).flatten(2).mean(2, keepdim=True)
        return functional.normalize(self.encoded(functional.elu(self.divided(features)))[..., 0], dim=1)


def segments(sound: Tensor) -> Tensor:
    """Seconds of a sound, half a second apart: (n, 8000). sound: float (samples,) at 8 kHz; a short one has none."""
    if len(sound) < SEGMENT:
        return sound.new_zeros(0, SEGMENT)
    return sound.unfold(0, SEGMENT, HOP)


def contrastive_loss(first: Tensor, second: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """NT-Xent, in the mean over all 2n points: -log of the softmax of a point's partner among all other points.

    first, second: (n, width) of length 1; row i of one is the partner of row i of the other. Source: Chen et al. 2020,
    "A simple framework for contrastive learning of visual representations", equation 1.
    """
    points = torch.cat([first, second])  # (2n, width)
    count = len(first)
    logits = (points @ points.T / temperature).fill_diagonal_(-torch.inf)
    partners = torch.arange(2 * count, device=points.device).roll(count)
    return functional.cross_entropy(logits, partners)
