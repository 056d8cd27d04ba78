"""Sounds out of log-mel spectrograms, which have lost the phase: Griffin-Lim, and descent on the sound itself.

Sources: Griffin & Lim 1984; Perraudin, Balazs & Sondergaard 2013 (momentum), as torchaudio has them.
"""

from collections.abc import Callable
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from jobs.common.audio.mel import FLOOR, LogMel
from jobs.common.params import StudyParams
from jobs.common.training import rules


class VocoderParams(StudyParams):
    """How a log-mel spectrogram becomes a sound."""

    kind: Literal["griffin_lim", "direct"] = Field(
        "direct",
        description="griffin_lim: phases that agree with each other; direct: also samples, so that their log-mels are "
        "those that were asked for",
    )
    iterations: int = Field(32, ge=1, le=1000, description="of Griffin-Lim")
    momentum: float = Field(0.99, ge=0, lt=1, description="of Griffin-Lim")
    steps: int = Field(150, ge=1, le=10_000, description="of `direct`, after Griffin-Lim")
    step_size: float = Field(2e-3, gt=0, le=1, description="of `direct`: Adam's")


def vocode(
    mels: Tensor, mel: LogMel, samples: int, params: VocoderParams, check: Callable[[], None] = lambda: None
) -> Tensor:
    """mels: (rows, bands, frames), as `mel` makes them of sounds of so many samples. Returns (rows, samples).

    check: called before each step of the descent; what it raises ends it.
    """
    sounds = griffin_lim(mels, mel, samples, params)
    return sounds if params.kind == "griffin_lim" else _descended(sounds, mels, mel, params, check)


def griffin_lim(mels: Tensor, mel: LogMel, samples: int, params: VocoderParams) -> Tensor:
    """The filters undone by their pseudo-inverse, then phases found by going back and forth."""
    from torchaudio.functional import griffinlim  # few processes need it

    power = (mels.exp() - FLOOR).clamp(min=0)  # (rows, bands, frames)
    inverse = torch.linalg.pinv(mel.filters.double()).float()  # (bands, bins)
    magnitudes = torch.einsum("bmt,mf->bft", power, inverse).clamp(min=0).sqrt()
    sounds: Tensor = griffinlim(
        magnitudes,
        window=mel.taper,
        n_fft=mel.size,
        hop_length=mel.hop,
        win_length=mel.window,
        power=1.0,
        n_iter=params.iterations,
        momentum=params.momentum,
        length=samples,
        rand_init=False,  # the same sound for the same spectrogram
    )
    return sounds


def _descended(sounds: Tensor, mels: Tensor, mel: LogMel, params: VocoderParams, check: Callable[[], None]) -> Tensor:
    """Samples moved until their log-mels are near. sounds: (rows, samples), to begin with."""
    sounds = sounds.detach().clone().requires_grad_()
    optimizer = rules.Adam([sounds], params.step_size, fused=True)
    for _ in range(params.steps):
        check()
        optimizer.zero_grad()
        # rows know nothing of each other: a sum over them, a mean within each
        loss = (mel(sounds) - mels).square().mean((1, 2)).sum()
        loss.backward()
        optimizer.step()
    return sounds.detach()
