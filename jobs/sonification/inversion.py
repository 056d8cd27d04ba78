"""Inversion: sounds that a layer cannot tell from a clip, and what they still have in common with it.

Source: Mahendran & Vedaldi 2015, "Understanding Deep Image Representations by Inverting Them".
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from jobs.common.audio.levels import RMS, at_loudness, quantised, rms
from jobs.common.audio.mel import LogMel
from jobs.common.audio.networks.base import SoundNetwork
from jobs.common.audio.pitch import fundamental
from jobs.common.data.sounds.base import FULL, SoundSet
from jobs.common.training import rules
from jobs.sonification.network_params import labels_of
from jobs.sonification.params import OTHER_VOICE, InversionParams
from jobs.sonification.responses import BandLevels, Responses
from service.errors import FieldError, InputError
from service.run import Run, reserved_device


@dataclass(frozen=True)
class Inverted:
    """A clip from what a layer answers to it."""

    layer: str
    clip: int
    """its place in the set"""
    start: str
    """noise, or other_voice"""
    sound: Tensor
    """(samples,), as a WAV of 16 bits holds it"""
    feature_error: float
    """of the layer's activations: the squared distance relative to the squared norm"""
    mel_error: float
    """the same of standardised log-mels"""
    start_error: float
    """of these, at the start"""
    predicted: int
    probability: float
    """of the clip's own class; NaN if the network does not know it"""
    hertz: float | None
    """its fundamental frequency; None: it has none"""


@dataclass(frozen=True)
class Shared:
    """What all cells need."""

    network: SoundNetwork
    params: InversionParams
    responses: Mapping[str, Responses]
    mel: LogMel
    levels: BandLevels
    """of the log-mels of the data"""
    clips: Tensor
    """(clips, samples): those that are inverted"""
    others: Tensor
    """(clips, samples): where `other_voice` begins"""
    labels: Tensor | None
    """int64 (clips,), among the classes of the network; None: it knows other classes"""

    def to(self, device: torch.device) -> "Shared":
        levels = BandLevels(self.levels.mean.to(device), self.levels.spread.to(device))
        return replace(
            self,
            network=self.network.to(device),
            mel=self.mel.to(device),
            levels=levels,
            clips=self.clips.to(device),
            others=self.others.to(device),
        )


def check(params: InversionParams, network: SoundNetwork, test: SoundSet) -> None:
    """UnknownNameError: a layer that is not there. FieldError, InputError: clips."""
    layers_of(params, network)
    if params.clips > len(test):
        raise FieldError("clips", f"be at most {len(test)}, the number of clips to test", params.clips)
    if OTHER_VOICE in params.start:
        others_of(test, params.clips)


def shared_of(
    params: InversionParams,
    network: SoundNetwork,
    responses: Mapping[str, Responses],
    mel: LogMel,
    levels: BandLevels,
    test: SoundSet,
) -> Shared:
    """What all cells need."""
    clips = test.sounds(torch.arange(params.clips))
    others = others_of(test, params.clips) if OTHER_VOICE in params.start else []
    labels = labels_of(network, test)
    return Shared(
        network,
        params,
        responses,
        mel,
        levels,
        clips,
        test.sounds(torch.tensor(others, dtype=torch.int64)),
        None if labels is None else labels[: params.clips],
    )


def layers_of(params: InversionParams, network: SoundNetwork) -> tuple[str, ...]:
    """UnknownNameError names one that the network has not."""
    network.check_layers(params.layers)
    return params.layers or network.layers[:-1]


def invert(shared: Shared, run: Run) -> list[Inverted]:
    """All clips at every layer, a cell for each layer and start."""
    params = shared.params
    cells: list[dict[str, Any]] = [
        {"layer": layer, "start": start, "seed": run.seed_for("inversion", layer, start)}
        for layer in layers_of(params, shared.network)
        for start in params.start
    ]
    results = run.map(inverted, cells, shared=shared, name="inversion")
    return [
        Inverted(
            layer=cell["layer"],
            clip=place,
            start=cell["start"],
            sound=result["sounds"][place].float() / FULL,
            feature_error=float(result["feature_errors"][place]),
            mel_error=float(result["mel_errors"][place]),
            start_error=float(result["start_errors"][place]),
            predicted=int(result["predicted"][place]),
            probability=float(result["probabilities"][place]),
            hertz=fundamental(result["sounds"][place].float(), shared.network.rate),
        )
        for cell, result in zip(cells, results, strict=True)
        if result is not None
        for place in range(len(shared.clips))
    ]


def inverted(cell: dict[str, Any], shared: Shared) -> dict[str, Tensor]:
    """The inversions of all clips from one layer."""
    shared = shared.to(reserved_device())
    if cell["start"] == "noise":
        stream = torch.Generator().manual_seed(cell["seed"])
        start = (RMS * torch.randn(shared.clips.shape, generator=stream)).to(shared.clips.device)
    else:
        start = shared.others
    targets = _standardised(shared, cell["layer"], shared.clips).detach()
    sounds = quantised(descend(shared, cell["layer"], targets, start))
    with torch.no_grad():
        errors = relative_errors(_standardised(shared, cell["layer"], sounds), targets)
        probabilities = shared.network(sounds).softmax(1)
        mels = _mels(shared, shared.clips)
    rows = torch.arange(len(sounds))
    results = {
        "sounds": (sounds * FULL).round().to(torch.int16),
        "feature_errors": errors,
        "mel_errors": relative_errors(_mels(shared, sounds), mels),
        "start_errors": relative_errors(_mels(shared, at_loudness(start)), mels),
        "predicted": probabilities.argmax(1),
        "probabilities": torch.full((len(rows),), math.nan)
        if shared.labels is None
        else probabilities[rows, shared.labels],
    }
    return {name: values.cpu() for name, values in results.items()}


def descend(shared: Shared, layer: str, targets: Tensor, start: Tensor) -> Tensor:
    """Move sounds until the layer answers to them as it should: (clips, samples), of the loudness of all sounds."""
    params = shared.params
    values = start.clone().requires_grad_()
    optimizer = rules.Adam([values], params.step_size, fused=True)
    for _ in range(params.steps):
        sounds = at_loudness(values)
        loss = relative_errors(_standardised(shared, layer, sounds), targets)
        loss = loss + params.variation * (sounds.diff(dim=1).abs().mean(1) / rms(sounds)[:, 0])
        (values.grad,) = torch.autograd.grad(loss.sum(), values)
        optimizer.step()
    return at_loudness(values.detach())


def relative_errors(answers: Tensor, targets: Tensor) -> Tensor:
    """Squared distances relative to the squared norms of the targets: (rows, …) each to (rows,)."""
    distance, size = (answers - targets).flatten(1).square().sum(1), targets.flatten(1).square().sum(1)
    return distance / size.clamp(min=1e-12)


def _standardised(shared: Shared, layer: str, sounds: Tensor) -> Tensor:
    """What a layer answers, in standard deviations: (clips, channels, frames)."""
    known = shared.responses[layer]
    mean, spread = known.mean.to(sounds.device), known.spread.to(sounds.device)
    answers = shared.network.activations(sounds, [layer])[layer]
    return (answers - mean[:, None]) / spread[:, None]


def _mels(shared: Shared, sounds: Tensor) -> Tensor:
    mels: Tensor = (shared.mel(sounds) - shared.levels.mean[:, None]) / shared.levels.spread[:, None]
    return mels


def others_of(clips: SoundSet, count: int) -> list[int]:
    """For each of the first clips, the place of the first one of another voice and another class.

    InputError if the set knows no voices, or has no such clip.
    """
    voices = clips.factors.get("voice")
    if voices is None:
        raise InputError(f"inversion from other_voice: {clips.name} does not say whose voice a clip has")
    labels = clips.labels.tolist()
    places = []
    for place in range(count):
        fit = [
            other for other in range(len(clips)) if voices[other] != voices[place] and labels[other] != labels[place]
        ]
        if not fit:
            raise InputError(f"inversion from other_voice: {clips.name} has no clip of another voice and class")
        places.append(fit[place % len(fit)])
    return places


def rows_of(results: Sequence[Inverted], clips: SoundSet, classes: Sequence[str]) -> list[dict[str, Any]]:
    """The table of inversions."""
    source = {place: fundamental(clips.sounds(torch.tensor([place]))[0], clips.rate) for place in range(len(clips))}
    return [
        {
            "layer": each.layer,
            "start": each.start,
            "clip": clips.names[each.clip],
            "feature_error": each.feature_error,
            "mel_error": each.mel_error,
            "start_error": each.start_error,
            "class": clips.classes[int(clips.labels[each.clip])],
            "predicted_class": classes[each.predicted],
            "probability": each.probability,
            "hertz": each.hertz,
            "source_hertz": source[each.clip],
        }
        for each in results
    ]
