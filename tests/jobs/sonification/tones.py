"""A set of sounds that learns in seconds: bands of noise and harmonics, spoken by nobody."""

from itertools import product

import torch

from jobs.common.audio.files import Sound
from jobs.common.audio.networks.base import OUTPUT, SoundNetwork
from jobs.common.audio.networks.recogniser import Recogniser
from jobs.common.data.sets import Split
from jobs.common.data.sounds.base import Clips, Source, clip_of

CLASSES = {"low": 400.0, "middle": 1000.0, "high": 2400.0}
VOICES = {"pure": 1, "rich": 4}
RATE, SECONDS = 8_000, 0.25
SOURCE = {"name": f"{__name__}:tones", "rate": RATE, "seconds": SECONDS}


def tones(split: Split, source: Source) -> Clips:
    """Three classes by two voices at five pitches, twice: 60 clips to train and 30 to test."""
    sounds, labels, names, voices, pitches = [], [], [], [], []
    stream = torch.Generator().manual_seed(0 if split == "train" else 1)
    at = torch.arange(source.samples) / source.rate
    repeats = range(2 if split == "train" else 1)
    for (label, (name, centre)), (voice, harmonics), step, _ in product(
        enumerate(CLASSES.items()), VOICES.items(), range(5), repeats
    ):
        hertz = centre * (1 + 0.05 * step)
        samples = torch.zeros(len(at))
        for k in range(1, harmonics + 1):
            if k * hertz < source.rate / 2:
                samples += (2 * torch.pi * k * hertz * at + torch.rand(1, generator=stream) * 6).sin() / k
        start = int(torch.randint(0, source.samples // 4, (1,), generator=stream))
        samples[:start] = 0
        place = len(sounds)
        sounds.append(clip_of(Sound(samples, source.rate), source, place))
        labels.append(label)
        names.append(f"{name} {voice} {step}")
        voices.append(voice)
        pitches.append(hertz)
    factors = {"voice": tuple(voices), "pitch": tuple(pitches)}
    return Clips("tones", tuple(CLASSES), torch.stack(sounds), torch.tensor(labels), source.rate, names, factors)


SMALL = {"bands": 16, "channels": [8, 8], "kernels": [3, 5], "strides": [1, 2]}


def network(seed: int = 0) -> Recogniser:
    """An untrained recogniser whose batch norm has heard sounds."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        built = Recogniser(list(CLASSES), rate=RATE, **SMALL)  # type: ignore[arg-type]
        built.train()(0.1 * torch.randn(16, round(SECONDS * RATE)))
    return built.eval().requires_grad_(False)


class Deaf(torch.nn.Module):
    """A stage that no gradient goes through."""

    def forward(self, sounds: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(sounds.detach().numpy().copy())[:, None, ::100]


def deaf() -> SoundNetwork:
    """A network whose front end is numpy's."""
    return SoundNetwork(RATE, tuple(CLASSES), {"front": Deaf(), OUTPUT: torch.nn.Conv1d(1, 3, 1)}, 100)


def other_rate() -> SoundNetwork:
    return Recogniser(list(CLASSES), rate=16_000)


def plain() -> torch.nn.Module:
    return torch.nn.Linear(2, 2)


def without_mels() -> SoundNetwork:
    """A network that begins with a filter of the waveform."""
    stages = {"filter": Filter(), OUTPUT: torch.nn.Conv1d(4, 3, 1)}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SoundNetwork(RATE, tuple(CLASSES), stages, 100).eval()


class Filter(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = torch.nn.Conv1d(1, 4, 32, 16)

    def forward(self, sounds: torch.Tensor) -> torch.Tensor:
        filtered: torch.Tensor = self.convolution(sounds[:, None])
        return filtered


def dead() -> Recogniser:
    """One channel of the first convolution is never above zero."""
    built = network()
    with torch.no_grad():
        built.stages["conv1"][2].bias[2] = -100.0  # type: ignore[index, union-attr, operator]
    return built
