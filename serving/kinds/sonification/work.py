"""A sound that excites a feature of a network that listens, from a request to its answer.

Inputs, all optional: "sounds" FP32 (1, samples), a clip that the sound begins with in place of noise; "direction" FP32
(channels,), for the objective of that name. Parameters: those of `serving.kinds.sonification.options`.

Outputs, a row for each copy: the sound as a WAV of 16 bits holds it, and its log-mel spectrogram as the network begins
with it; the objective at the start, of what was optimised, and (final) of the sound in the WAV through the whole
network; the place of the feature among all of its layer by that sound (0: it has none), and how many those are;
whether the feature is dead, as no clip excites it: then nothing is optimised; the objective in each frame that counts,
and after each step; what class the network takes the sound for; the passes forward (queries) and back (gradients).
Activations are in standard deviations of their channel over real clips, those of a class are log-probabilities.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from jobs.common.audio.levels import high_pass, rms
from jobs.common.audio.networks.base import SoundNetwork, log_mel_of
from jobs.sonification.optimisation.ascent import Sonified, Subject, ascend
from jobs.sonification.optimisation.edges import Inside, inside
from jobs.sonification.optimisation.objectives import ClassObjective, DirectionObjective, LayerObjective
from jobs.sonification.optimisation.parameterisations import LogMels, SoundFormat
from jobs.sonification.optimisation.selectivity import places, scores_of_all
from service.errors import BusyError, InputError, ModelError
from service.models import TensorSpec
from serving.http.messages import Form
from serving.http.protocol import InferRequest, Scalar, fitted
from serving.http.settings import Sonification
from serving.http.tensors import Array
from serving.kinds.sonification.options import Options
from serving.kinds.sonification.rendering import rendering
from serving.kinds.work import Answer, AttackCost, Attacked, AttackWork, Rendering, Stopped, check_of

SOUNDS, DIRECTION = "sounds", "direction"
INPUTS = (
    TensorSpec(name=SOUNDS, datatype="FP32", shape=(1, -1)),
    TensorSpec(name=DIRECTION, datatype="FP32", shape=(-1,)),
)
FAINT = 1e-5  # a root mean square below it is less than the last bit of 16
AROUND = (5, 1)  # passes forward and back besides those of the steps: edges, start, end, the WAV, its class
FEWER = "ask for fewer steps or copies, or a shorter sound"


@dataclass(frozen=True)
class LayerUnits:
    """What a layer answers to real clips. mean, spread: float32 (channels,). dead: bool (channels,)."""

    mean: Tensor
    spread: Tensor
    dead: Tensor


@dataclass(frozen=True)
class Listener:
    """A loaded network that listens, on its device, and what its card says of it.

    classes: their names. layers: by depth. mean_mel: (bands,), of the data. macs_of_sample: multiplications of a pass,
    for each sample.
    """

    name: str
    network: SoundNetwork
    device: torch.device
    classes: tuple[str, ...]
    layers: Mapping[str, LayerUnits]
    mean_mel: Tensor
    macs_of_sample: float

    @property
    def channels(self) -> dict[str, int]:
        """How many each layer has."""
        return {name: len(units.mean) for name, units in self.layers.items()}

    def sound_format(self, samples: int, high_pass: float) -> SoundFormat:
        mel = log_mel_of(self.network).to(self.device)
        return SoundFormat(self.network.rate, samples, high_pass, mel, self.mean_mel.to(self.device))


@dataclass(frozen=True, eq=False)
class SonificationWork(AttackWork):
    """A request to sonify.

    clip: (samples,), that the sound begins with. direction: (channels,), of length 1. warnings: about the request.
    """

    outputs: ClassVar[tuple[str, ...]] = (
        "sounds",
        "log_mel",
        "start",
        "optimised",
        "final",
        "rank",
        "features",
        "dead",
        "curve",
        "history",
        "prediction",
        "probabilities",
        "queries",
        "gradients",
    )

    listener: Listener
    limits: Sonification
    options: Options
    samples: int
    clip: Tensor | None = None
    direction: Tensor | None = None
    rendering: Rendering | None = None
    warnings: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        return self.options.ascent.copies

    @property
    def dead(self) -> bool:
        """Whether no clip excites the feature."""
        objective, dead = self.options.objective, self.listener.layers[self.options.layer].dead
        if isinstance(objective, LayerObjective):
            return bool(dead.all())
        return not isinstance(objective, ClassObjective | DirectionObjective) and bool(dead[self.options.number])

    @property
    def cost(self) -> AttackCost:
        """A step of a vocoder counts as one of the ascent."""
        ascent = self.options.ascent
        vocoder = ascent.parameterisation.vocoder.steps if isinstance(ascent.parameterisation, LogMels) else 0
        passes = 2 * (ascent.steps + vocoder) + sum(AROUND)
        return AttackCost(passes, self.rows * self.samples * self.listener.macs_of_sample / 1e9)

    @property
    def parameters(self) -> Mapping[str, Scalar]:
        return self.options.parameters

    def check(self) -> None:
        """InputError if it takes more than is allowed, or the network does not take such a sound."""
        limits, ascent, rate = self.limits, self.options.ascent, self.listener.network.rate
        if (seconds := self.rows * self.samples / rate) > limits.sound_seconds:
            raise InputError(
                f"the sounds must last at most {limits.sound_seconds:g} s together (sonification.sound_seconds); "
                f"they last {seconds:g}",
                FEWER,
            )
        if ascent.steps > limits.steps:
            raise InputError(
                f"parameter 'steps' must be at most {limits.steps:,} (sonification.steps); it is {ascent.steps:,}"
            )
        if (cost := self.cost).gmacs > limits.gmacs:
            raise InputError(
                f"sonify must take at most {limits.gmacs:,.0f} billion multiplications (sonification.gmacs); "
                f"{cost.passes:,} passes take up to {cost.gmacs:,.0f}",
                FEWER,
            )
        self.listener.network.check_length(self.samples)
        ascent.parameterisation.check(self.listener.network, self.options.layer)

    def compute(self, stopped: Stopped) -> Attacked:
        seconds = self.limits.seconds
        check = check_of(stopped, seconds, BusyError(f"it must end within {seconds:g} s (sonification.seconds)", FEWER))
        check()
        options, device, network = self.options, self.listener.device, self.listener.network
        frames = inside(network, options.layer, self.samples, device)
        subject = self._subject(frames)
        # a dead feature has no slope, or one that no real sound has: its noise is measured, and that is all
        ascent = options.ascent.model_copy(update={"steps": 0}) if self.dead else options.ascent
        sound_format = self.listener.sound_format(self.samples, options.sound.high_pass)
        clip = None if self.clip is None else self.clip.to(device)
        seeds = [options.sound.seed]
        made = ascend(subject, options.objective, [options.number], seeds, sound_format, ascent, clip, check)
        check()
        with torch.no_grad():
            logits = network(made.sounds)
            outputs = {**self._measured(made), "log_mel": sound_format.mel(made.sounds)}
        outputs |= {"probabilities": logits.softmax(1), "prediction": logits.argmax(1)}
        if not bool(outputs["final"].isfinite().all() and logits.isfinite().all()):
            raise self._not_finite()
        forward, back = AROUND
        answer = {name: tensor.cpu().numpy() for name, tensor in outputs.items()}
        answer["dead"] = torch.full((self.rows,), self.dead).numpy()
        answer["queries"] = torch.full((self.rows,), ascent.steps + forward).numpy()
        answer["gradients"] = torch.full((self.rows,), ascent.steps + back).numpy()
        return Attacked({name: answer[name] for name in self.outputs}, (*self.warnings, *self._warnings(frames)))

    def _not_finite(self) -> InputError | ModelError:
        """The error about answers that are not finite: the penalties' if there are any, else the model's."""
        penalties = dict(self.options.ascent.regularisation)
        if self.options.ascent.copies > 1:
            penalties["diversity"] = self.options.ascent.diversity
        if weights := [f"{name!r}" for name, weight in penalties.items() if weight > 1]:
            return InputError(
                f"the sound has no finite numbers with such weights: {', '.join(weights)} must be smaller"
            )
        return ModelError(f"model {self.listener.name!r} answers NaN or infinite activations")

    def _subject(self, frames: Inside) -> Subject:
        units, device = self.listener.layers[self.options.layer], self.listener.device
        mean, spread = units.mean, units.spread
        if isinstance(self.options.objective, ClassObjective):  # of logits as they are
            mean, spread = torch.zeros_like(mean), torch.ones_like(spread)
        directions = None if self.direction is None else self.direction[None].to(device)
        return Subject(
            self.listener.network, self.options.layer, mean.to(device), spread.to(device), frames, directions
        )

    def _measured(self, made: Sonified) -> dict[str, Tensor]:
        """Of the sounds that were made, what concerns the feature."""
        objective, number = self.options.objective, self.options.number
        rows, _, frames = made.activations.shape
        own = torch.full((rows,), number, device=made.sounds.device)
        ranked = not isinstance(objective, LayerObjective | DirectionObjective)
        scores = scores_of_all(objective, made.activations) if ranked else made.activations.new_zeros(rows, 1)
        each_frame = made.activations.transpose(1, 2).flatten(0, 1)[:, :, None]  # (rows * frames, channels, 1)
        return {
            "sounds": made.sounds,
            "start": made.start,
            "optimised": made.optimised,
            "final": made.final,
            "rank": places(scores, own) if ranked else torch.zeros(rows, dtype=torch.int64),
            "features": torch.full((rows,), scores.shape[1]),
            "curve": objective.scores(each_frame, own.repeat_interleave(frames)).view(rows, frames),
            "history": made.history.T.contiguous(),
        }

    def _warnings(self, frames: Inside) -> list[str]:
        layer, warnings = self.options.layer, []
        if self.dead:
            warnings.append(f"the feature of layer {layer!r} is dead: no clip excites it, and nothing was optimised")
        if not frames.whole and frames.last - frames.first > 1:
            warnings.append(f"a frame of {layer!r} sees more than the sound is long: the middle third of them counts")
        return warnings


def prepare(
    listener: Listener, request: InferRequest, form: Form, limits: Sonification, check_clip: Callable[[Array], str]
) -> SonificationWork:
    """Check everything that can be known before the network is called. InputError, one sentence.

    check_clip: InputError if sounds are not as the model takes them; a warning about them, or nothing.
    """
    inputs = fitted(request.inputs, (), optional=INPUTS)
    warning = check_clip(inputs[SOUNDS]) if SOUNDS in inputs else ""
    options = Options.parse(request.parameters, listener.channels, listener.classes, SOUNDS in inputs)
    clip = torch.tensor(inputs[SOUNDS][0]) if SOUNDS in inputs else None  # a copy: an array may view the body
    samples = round(options.sound.seconds * listener.network.rate) if clip is None else len(clip)
    work = SonificationWork(
        listener,
        limits,
        options,
        samples,
        clip,
        _direction(inputs.get(DIRECTION), options, listener),
        rendering(form, options.ascent.copies, listener.network.rate, _first_sound),
        (warning,) if warning else (),
    )
    work.check()
    if clip is not None and float(rms(high_pass(clip, listener.network.rate, options.sound.high_pass))) < FAINT:
        raise InputError(f"input {SOUNDS!r} is silent above {options.sound.high_pass:g} Hz, the parameter 'high_pass'")
    return work


def _direction(direction: Array | None, options: Options, listener: Listener) -> Tensor | None:
    """A vector of length 1, where the objective takes one. InputError if it is not one of the layer's channels."""
    takes = isinstance(options.objective, DirectionObjective)
    if direction is None:
        if takes:
            raise InputError(f"input {DIRECTION!r} is missing: FP32, a number for each channel of {options.layer!r}")
        return None
    if not takes:
        raise InputError(f"input {DIRECTION!r} is for the objective 'direction'")
    if len(direction) != (channels := listener.channels[options.layer]):
        raise InputError(
            f"input {DIRECTION!r} must have {channels} numbers, one for each channel of {options.layer!r}; "
            f"it has {len(direction)}"
        )
    vector = torch.tensor(direction)
    if not bool(vector.any()):
        raise InputError(f"input {DIRECTION!r} must have a number that is not 0")
    return torch.nn.functional.normalize(vector.double(), dim=0).float()


def _first_sound(answer: Answer) -> Array:
    sound: Array = answer[SOUNDS][0]
    return sound
