"""Gradient ascent on many sounds at a time, each for a feature of its own."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from jobs.common.audio.levels import quantised
from jobs.common.audio.networks.base import SoundNetwork
from jobs.common.audio.transformations import TransformationParams
from jobs.common.params import StudyParams
from jobs.common.training import rules
from jobs.sonification.optimisation.edges import Inside
from jobs.sonification.optimisation.objectives import Objective, OwnObjective, mean_cosine
from jobs.sonification.optimisation.parameterisations import AnyParameterisation, LogMels, SoundFormat, Waveform
from jobs.sonification.optimisation.regularisation import OF_SAMPLES, RegularisationParams
from service.errors import FieldError


class AscentParams(StudyParams):
    """How sounds are optimised."""

    parameterisation: AnyParameterisation = Field(Waveform(), description="what is optimised in place of a sound")
    steps: int = Field(200, ge=0, le=100_000, description="gradient steps; 0: a sound stays as it begins")
    transformations: TransformationParams = Field(
        TransformationParams(), description="random changes that the sound has to bear, at every step"
    )
    regularisation: RegularisationParams = Field(RegularisationParams(), description="penalties")
    copies: int = Field(1, ge=1, le=64, description="sounds for each feature")
    diversity: float = Field(
        0.1, ge=0, description="weight of the mean cosine between the copies for a feature, if there are several"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if isinstance(self.parameterisation, LogMels):
            for name in OF_SAMPLES:
                if weight := getattr(self.regularisation, name):
                    requirement = "be 0 with the parameterisation log_mel, which optimises no samples"
                    raise FieldError(f"regularisation.{name}", requirement, weight)
            noise = self.transformations.noise
            if noise not in (0, TransformationParams.model_fields["noise"].default):
                requirement = "be left out with the parameterisation log_mel, which optimises no samples"
                raise FieldError("transformations.noise", requirement, noise)
        return self


@dataclass(frozen=True)
class Subject:
    """A layer of a network, and the units of its activations."""

    network: SoundNetwork
    """in evaluation mode, without gradients of its weights"""
    layer: str
    mean: Tensor
    """(channels,), over the frames of the data"""
    spread: Tensor
    """(channels,), their standard deviation"""
    inside: Inside
    """the frames that count"""
    directions: Tensor | None = None
    """(directions, channels), unit vectors that stand in place of channels"""

    def activations(self, inputs: Tensor, after: str | None = None) -> Tensor:
        """Standardised, of the frames that count: (rows, channels, frames). inputs, after: as of the network."""
        answers = self.network.activations(inputs, [self.layer], after)[self.layer][:, :, self.inside.frames]
        answers = (answers - self.mean[:, None]) / self.spread[:, None]
        if self.directions is not None:
            return torch.einsum("rct,dc->rdt", answers, self.directions)
        return answers

    def own(self, inputs: Tensor, features: Tensor, after: str | None = None) -> Tensor:
        """Those of one channel or direction for each row alone: (rows, frames). features: int64 (rows,)."""
        if self.directions is None:
            answers = self.network.channels(inputs, self.layer, features, after)[:, self.inside.frames]
            return (answers - self.mean[features, None]) / self.spread[features, None]
        directions = self.directions[features] / self.spread
        answers = self.network.along(inputs, self.layer, directions, after)[:, self.inside.frames]
        return answers - (directions @ self.mean)[:, None]


@dataclass(frozen=True)
class Sonified:
    """What came out for each row: a feature, or one of its copies, next to each other."""

    sounds: Tensor
    """(rows, samples), as a WAV of 16 bits holds them"""
    start: Tensor
    """(rows,): the objective at the start"""
    optimised: Tensor
    """(rows,): of what was optimised, at the end"""
    final: Tensor
    """(rows,): of the sound in the WAV, through the whole network"""
    history: Tensor
    """(steps, rows): of what was optimised under random changes"""
    activations: Tensor
    """(rows, channels, frames): of the sound in the WAV"""


def ascend(
    subject: Subject,
    objective: Objective,
    features: Sequence[int],
    seeds: Sequence[int],
    sound_format: SoundFormat,
    params: AscentParams,
    clip: Tensor | None = None,
    check: Callable[[], None] = lambda: None,
) -> Sonified:
    """Make sounds that excite features of one layer, on the device of the subject, where the sound_format is too.

    features: channels, directions or classes. seeds: one for each, of the noise that its sounds begin with; changes are
    drawn from the first. clip: (samples,), which all begin with in place of noise. check: called before each pass
    through the network and each step of a vocoder; what it raises ends the ascent.
    """
    device = subject.mean.device
    rows = torch.tensor(features, device=device).repeat_interleave(params.copies)
    kind, after = params.parameterisation, params.parameterisation.after(subject.network)
    begin = None if clip is None else sound_format.finished(clip).expand(len(rows), -1)

    def draw(*shape: int) -> Tensor:
        streams = [torch.Generator().manual_seed(seed) for seed in seeds]
        return torch.cat([torch.randn(params.copies, *shape, generator=each) for each in streams]).to(device)

    def scores(inputs: Tensor) -> Tensor:
        check()
        return objective.scores(subject.activations(inputs, after), rows)

    values = kind.start(draw, begin, sound_format).clone(memory_format=torch.contiguous_format).requires_grad_()
    with torch.no_grad():
        start = scores(kind.shown(values, sound_format))
    optimizer = rules.Adam([values], kind.step_size, fused=True)
    diverse = params.copies > 1 and params.diversity > 0
    stream = torch.Generator().manual_seed(seeds[0])
    history = torch.empty(params.steps, len(rows), device=device)
    for step in range(params.steps):
        check()
        shown = kind.shown(values, sound_format)
        changed = kind.transformed(shown, params.transformations, sound_format, stream)
        if isinstance(objective, OwnObjective) and not diverse:
            gains = reached = objective.of_own(subject.own(changed, rows, after))
        else:
            activations = subject.activations(changed, after)
            gains = reached = objective.scores(activations, rows)
            if diverse:
                alike = mean_cosine(activations, params.copies)  # (features,)
                gains = gains - params.diversity * alike.repeat_interleave(params.copies) / params.copies
        history[step] = reached.detach()
        gains = gains - _penalties(shown, begin, sound_format, params)
        (gradient,) = torch.autograd.grad(-gains.sum(), values)
        values.grad = gradient
        optimizer.step()

    with torch.no_grad():
        shown = kind.shown(values, sound_format)
        optimised = scores(shown)
    sounds = quantised(kind.sounds(shown.detach(), sound_format, check))
    check()
    with torch.no_grad():
        activations = subject.activations(sounds)
        final = objective.scores(activations, rows)
    return Sonified(sounds, start, optimised, final, history, activations)


def _penalties(shown: Tensor, begin: Tensor | None, sound_format: SoundFormat, params: AscentParams) -> Tensor:
    """(rows,)"""
    regularisation, kind = params.regularisation, params.parameterisation
    penalty = shown.new_zeros(len(shown))
    if regularisation.of_mels:
        penalty = penalty + regularisation.of_log_mels(kind.mels(shown, sound_format), sound_format.mean_mel)
    if shown.ndim == 2:  # samples
        penalty = penalty + regularisation.of_sounds(shown, begin)
    return penalty
