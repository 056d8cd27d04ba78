"""Which features of which layers are made audible, in cells of many; and what comes out, feature by feature."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from jobs.common.audio.networks.base import OUTPUT, SoundNetwork, log_mel_of
from jobs.common.data.batches import permutation
from jobs.common.data.classes import class_index
from jobs.common.data.sounds.base import FULL, SoundSet
from jobs.sonification.optimisation.ascent import Subject, ascend
from jobs.sonification.optimisation.edges import inside
from jobs.sonification.optimisation.objectives import ClassObjective, LayerObjective
from jobs.sonification.optimisation.parameterisations import SoundFormat
from jobs.sonification.optimisation.selectivity import places, scores_of_all, scores_of_drawn
from jobs.sonification.params import SonificationParams
from jobs.sonification.responses import Responses
from service.errors import FieldError
from service.run import Run, reserved_device

KEPT = 50  # values of the objective along the way that are kept


@dataclass(frozen=True)
class Feature:
    """One thing that is made audible."""

    layer: str
    number: int
    """of a channel or class; 0 for a whole layer"""
    name: str
    """what figures and tables call it"""
    dead: bool
    """a channel that no clip excites: it is not optimised"""


@dataclass(frozen=True)
class Sonification:
    """What came out for a feature: of its copies, in the order of their rows."""

    feature: Feature
    copy: int
    sound: Tensor
    """(samples,)"""
    start: float
    optimised: float
    final: float
    """the objective at the start, at the end, and of the sound in the WAV through the whole network"""
    rank: int | None
    """of the feature among all of its layer by how much the sound excites them, from 1; None: of a whole layer"""
    rivals: int
    """features of the layer"""
    drawn: Tensor
    """(features,): what the sound excites those of the layer by that were drawn at random; none: of a whole layer"""
    curve: Tensor
    """(steps that are kept,): the objective along the way"""
    activations: Tensor
    """(channels,): means over time, in standard deviations"""
    predicted: int
    probability: float
    """the class that the network hears in it"""

    @property
    def gained(self) -> float:
        """By how much the objective of what was optimised rose. A log-probability has no zero to measure it from."""
        return self.optimised - self.start

    @property
    def kept(self) -> float | None:
        """The share of it that is left in the WAV; None if nothing was gained."""
        return (self.final - self.start) / self.gained if self.gained > 0 else None


@dataclass(frozen=True)
class Shared:
    """What all cells of a sonification need."""

    network: SoundNetwork
    params: SonificationParams
    responses: Mapping[str, Responses]
    directions: Mapping[str, Tensor]
    """by layer: (classes, channels), for directions"""
    sound_format: SoundFormat
    clip: Tensor | None
    """(samples,)"""

    def subject(self, layer: str, device: torch.device) -> Subject:
        """A layer, on a device."""
        known, directions = self.responses[layer], self.directions.get(layer)
        logits = isinstance(self.params.objective, ClassObjective)
        return Subject(
            self.network.to(device),
            layer,
            (torch.zeros_like(known.mean) if logits else known.mean).to(device),
            (torch.ones_like(known.spread) if logits else known.spread).to(device),
            inside(self.network.to(device), layer, self.sound_format.samples, device),
            None if directions is None else directions.to(device),
        )


def layers_of(params: SonificationParams, network: SoundNetwork) -> tuple[str, ...]:
    """UnknownNameError names one that the network has not; FieldError one that the objective cannot be asked of."""
    network.check_layers(params.layers)
    if unfit := [layer for layer in params.layers if not params.objective.fits(layer)]:
        raise FieldError("layers", f"be {OUTPUT} for an objective of kind {params.objective.kind}", unfit[0])
    if params.layers:
        return params.layers
    return (OUTPUT,) if isinstance(params.objective, ClassObjective) else network.layers[1:-1]


def features_of(
    params: SonificationParams, network: SoundNetwork, responses: Mapping[str, Responses], clips: SoundSet, run: Run
) -> list[Feature]:
    """All that is to be made audible."""
    features = []
    for layer in layers_of(params, network):
        known = responses[layer]
        if isinstance(params.objective, LayerObjective):
            features.append(Feature(layer, 0, "all channels", bool(known.dead.all())))
        elif params.by_class:
            classes = network.classes if isinstance(params.objective, ClassObjective) else clips.classes
            numbers = [class_index(classes, name) for name in params.classes] or list(range(len(classes)))
            features += [Feature(layer, number, classes[number], dead=False) for number in numbers]
        else:
            features += [
                Feature(layer, number, str(number), bool(known.dead[number]))
                for number in _channels(params, known, run)
            ]
    return features


def _channels(params: SonificationParams, known: Responses, run: Run) -> Sequence[int]:
    if params.channels:
        return params.channels
    if params.count is None or params.count >= known.channels:
        return range(known.channels)
    order = permutation(known.channels, run.seed_for("channels", known.layer))
    return sorted(order[: params.count].tolist())


def sonify(name: str, features: Sequence[Feature], shared: Shared, run: Run) -> list[Sonification]:
    """Optimise the features that are not dead, `batch` of a layer in a cell."""
    cells: list[dict[str, Any]] = []
    batches: list[list[Feature]] = []
    for layer in dict.fromkeys(each.layer for each in features):
        alive = [each for each in features if each.layer == layer and not each.dead]
        for first in range(0, len(alive), shared.params.batch):
            batch = alive[first : first + shared.params.batch]
            seeds = [run.seed_for("sonify", name, layer, each.number) for each in batch]
            drawn = [run.seed_for("drawn", name, layer, each.number) for each in batch]
            cells.append({"layer": layer, "features": [each.number for each in batch], "seeds": seeds, "drawn": drawn})
            batches.append(batch)
    results = run.map(sonified, cells, shared=shared, name=f"sonify-{name.replace('_', '-')}")
    sonifications = []
    for batch, result in zip(batches, results, strict=True):
        if result is not None:
            sonifications += _of_batch(batch, result, shared)
    return sonifications


def sonified(cell: dict[str, Any], shared: Shared) -> dict[str, Tensor]:
    """The sounds of a cell, and what is measured of them."""
    device = reserved_device()
    params, subject, sound_format = shared.params, shared.subject(cell["layer"], device), shared.sound_format.to(device)
    clip = None if shared.clip is None else shared.clip.to(device)
    made = ascend(subject, params.objective, cell["features"], cell["seeds"], sound_format, params.ascent, clip)
    with torch.no_grad():
        probabilities = shared.network(made.sounds).softmax(1)
    copies = params.ascent.copies
    own = torch.tensor(cell["features"], device=device).repeat_interleave(copies)
    scores = scores_of_all(params.objective, made.activations)
    steps = torch.linspace(0, len(made.history) - 1, min(KEPT, len(made.history))).long()
    results = {
        "sounds": (made.sounds * FULL).round().to(torch.int16),
        "start": made.start,
        "optimised": made.optimised,
        "final": made.final,
        "ranks": places(scores, own),
        "rivals": torch.tensor(made.activations.shape[1]),
        "drawn": scores_of_drawn(scores, own, [seed for seed in cell["drawn"] for _ in range(copies)]),
        "curves": made.history[steps].T.contiguous(),
        "activations": _channel_means(subject, made.sounds),
        "probabilities": probabilities,
    }
    return {name: values.cpu() for name, values in results.items()}


def _channel_means(subject: Subject, sounds: Tensor) -> Tensor:
    """(rows, channels): of channels, also where directions are optimised."""
    with torch.no_grad():
        answers = subject.network.activations(sounds, [subject.layer])[subject.layer][:, :, subject.inside.frames]
    means: Tensor = (answers.mean(2) - subject.mean) / subject.spread
    return means


def _of_batch(batch: Sequence[Feature], result: dict[str, Tensor], shared: Shared) -> list[Sonification]:
    copies, sonifications = shared.params.ascent.copies, []
    whole = isinstance(shared.params.objective, LayerObjective)
    for place, feature in enumerate(batch):
        for copy in range(copies):
            row = place * copies + copy
            probability, predicted = result["probabilities"][row].max(0)
            sonifications.append(
                Sonification(
                    feature=feature,
                    copy=copy,
                    sound=result["sounds"][row].float() / FULL,
                    start=float(result["start"][row]),
                    optimised=float(result["optimised"][row]),
                    final=float(result["final"][row]),
                    rank=None if whole else int(result["ranks"][row]),
                    rivals=int(result["rivals"]),
                    drawn=result["drawn"][row],
                    curve=result["curves"][row],
                    activations=result["activations"][row],
                    predicted=int(predicted),
                    probability=float(probability),
                )
            )
    return sonifications


def check_section(
    params: SonificationParams, network: SoundNetwork, channels: Mapping[str, int], test: SoundSet
) -> None:
    """Whether a network can do what is asked. channels: how many each layer has.

    UnknownNameError: a layer or class that is not there. FieldError: a channel, a clip. InputError: sounds too short.
    """
    for layer in layers_of(params, network):
        for number in params.channels:
            if not 0 <= number < channels[layer]:
                raise FieldError("channels", f"be from 0 to {channels[layer] - 1}, those of layer {layer!r}", number)
    if params.by_class:
        classes = network.classes if isinstance(params.objective, ClassObjective) else test.classes
        for name in params.classes:
            class_index(classes, name)
    if params.clip is not None and params.clip >= len(test):
        raise FieldError("clip", f"be below {len(test)}, the number of clips to test", params.clip)
    network.check_length(round(params.seconds * network.rate))
    for layer in layers_of(params, network):
        params.ascent.parameterisation.check(network, layer)


def shared_of(
    params: SonificationParams,
    network: SoundNetwork,
    responses: Mapping[str, Responses],
    clips: SoundSet,
    test: SoundSet,
    means: Tensor,
) -> Shared:
    """What all cells need. clips: that the responses are to. means: (bands,), the mean log-mels of the data."""
    samples, clip = round(params.seconds * network.rate), None
    if params.clip is not None:
        clip = test.sounds(torch.tensor([params.clip]))[0]
        samples = len(clip)
    directions = (
        {layer: class_directions(responses[layer], clips) for layer in layers_of(params, network)}
        if params.objective.kind == "direction"
        else {}
    )
    sound_format = SoundFormat(network.rate, samples, params.high_pass, log_mel_of(network), means)
    return Shared(network, params, responses, directions, sound_format, clip)


def class_directions(known: Responses, clips: SoundSet) -> Tensor:
    """From the mean of all clips to that of each class: (classes, channels), unit vectors."""
    means = known.standardised
    classes = [means[clips.labels == label].mean(0) for label in range(len(clips.classes))]
    directions: Tensor = torch.nn.functional.normalize(torch.stack(classes) - means.mean(0), dim=1)
    return directions
