"""The pitch of a sound, by CREPE (Kim et al. 2018)."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from jobs.common.audio.networks.pretrained import crepe
from service.errors import FieldError

HOP = 160  # samples: a pitch every 10 ms
NEAR = 4  # bins on each side of the most likely one that a pitch is the mean of (their section 2)
VOICED = 0.5  # confidence from which on a frame counts as having a pitch


@dataclass(frozen=True)
class Pitch:
    """Of each frame of a sound, 10 ms apart: (frames,)."""

    hertz: Tensor
    confidence: Tensor
    """in [0, 1]: the probability of the most likely bin"""

    @property
    def voiced(self) -> float:
        """The share of frames that have a pitch."""
        return float((self.confidence >= VOICED).double().mean())

    @property
    def median(self) -> float:
        """In hertz, of the frames that have a pitch; NaN if none has one."""
        voiced = self.hertz[self.confidence >= VOICED]
        return float(voiced.median()) if len(voiced) else float("nan")


class PitchJudge:
    """InputError on making it if CREPE's weights are not there."""

    def __init__(self, folder: Path | None = None) -> None:
        self._network = crepe.load(HOP, folder)

    @torch.no_grad()
    def pitch(self, sound: Tensor) -> Pitch:
        """sound: float (samples,) at 16 kHz. FieldError if it is shorter than a frame."""
        if len(sound) < crepe.WINDOW:
            raise FieldError("sound", f"have at least {crepe.WINDOW} samples, a frame of CREPE", len(sound))
        logits = self._network.activations(sound[None], ("output",))["output"][0].T  # (frames, bins)
        probabilities = logits.sigmoid()
        confidence, best = probabilities.max(1)
        bins = torch.arange(crepe.BINS)
        weights = probabilities * ((bins - best[:, None]).abs() <= NEAR)
        return Pitch(crepe.hertz_of((weights * bins).sum(1) / weights.sum(1)), confidence)
