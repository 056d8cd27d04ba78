"""Whether two sounds are of one voice: the speaker encoder of Resemblyzer.

Wan, Wang, Papir, Lopez Moreno 2018, "Generalized End-to-End Loss for Speaker Verification" (arXiv 1710.10467); the
weights are those of the package Resemblyzer.
"""

import math
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from jobs.common.data.packages import RESEMBLYZER

RATE = 16_000  # Hz
SIZE, HOP, BANDS = 400, 160, 40  # of the spectrum: windows of 25 ms, 10 ms apart
WIDTH = 256
PIECE, STEP = 160, 77  # frames that are heard at a time, 1.6 s, and between their starts, 0.77 s
LOUDNESS = -30.0  # dB of full scale, to which a quieter sound is brought


class SpeakerEncoder(nn.Module):
    """A voice as a direction, from mel powers."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(BANDS, WIDTH, 3, batch_first=True)
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, powers: Tensor) -> Tensor:
        """powers: (batch, frames, 40). Returns (batch, 256) of length 1."""
        _, (states, _) = self.lstm(powers)
        return functional.normalize(self.linear(states[-1]).relu(), dim=1)


class SpeakerJudge:
    """InputError on making it if the weights are not there."""

    def __init__(self, folder: Path | None = None) -> None:
        from torchaudio.transforms import MelSpectrogram

        self._powers = MelSpectrogram(RATE, SIZE, hop_length=HOP, n_mels=BANDS, norm="slaney", mel_scale="slaney")
        self._encoder = SpeakerEncoder().eval()
        saved = torch.load(RESEMBLYZER.path("pretrained.pt", folder), map_location="cpu", weights_only=True)
        weights = saved["model_state"]
        self._encoder.load_state_dict({name: weights[name] for name in self._encoder.state_dict()})

    @torch.no_grad()
    def voice(self, sound: Tensor) -> Tensor:
        """The direction of a voice: (256,) of length 1, the mean over pieces of 1.6 s. sound: (samples,) at 16 kHz."""
        level = 10 * math.log10(max(float(sound.square().mean()), 1e-20))
        louder = sound * 10 ** (max(LOUDNESS - level, 0) / 20)
        powers = self._powers(louder).T  # (frames, bands)
        missing = (PIECE - len(powers)) if len(powers) < PIECE else -(len(powers) - PIECE) % STEP
        powers = functional.pad(powers, (0, 0, 0, missing))
        pieces = powers.unfold(0, PIECE, STEP).transpose(1, 2)  # (pieces, frames, bands)
        return functional.normalize(self._encoder(pieces).mean(0), dim=0)

    def similarity(self, one: Tensor, other: Tensor) -> float:
        """The cosine of two voices: about .5 of strangers, above .75 of one speaker."""
        return float(self.voice(one) @ self.voice(other))
