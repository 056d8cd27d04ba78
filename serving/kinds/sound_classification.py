"""Recognisers of sounds as endpoints: samples in [-1, 1] or an uploaded sound in; logits, probabilities, prediction.

Inference takes no parameters. The names of the classes and the rate of the samples are in the model's metadata. An
uploaded sound of another rate is brought to the model's, several channels to their mean, and its length to that of the
clips which the model was evaluated on. Instead of tensors the answer may be that sound as the model gets it, or its
spectrogram. A model whose card says what its layers answer to real clips can be sonified.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import torch
from pydantic import BaseModel, Field, model_validator
from torch import nn

from jobs.common.audio.files import CLIPPED
from jobs.common.audio.levels import clipped_share
from jobs.common.audio.networks.base import SoundNetwork, channels_of, log_mel_of
from jobs.common.models.architectures import LARGEST
from service.errors import InputError, ModelError
from service.models import ModelCard, TensorSpec
from serving.http.messages import TENSORS, Form
from serving.http.protocol import InferRequest, Scalar, check_parameters
from serving.http.settings import ServeSettings, Sonification
from serving.http.sound_upload import SoundUpload
from serving.http.tensors import Array
from serving.kinds.base import Endpoint, Example, card_settings, split, unusable
from serving.kinds.images import ClassesOfCard, check_logits, class_scores, class_values
from serving.kinds.sonification.options import described
from serving.kinds.sonification.rendering import rendering
from serving.kinds.sonification.work import SOUNDS, LayerUnits, Listener, prepare
from serving.kinds.work import Abandoned, Answer, AttackWork, Stopped, Work

Finite = Annotated[float, Field(allow_inf_nan=False)]
Spread = Annotated[float, Field(gt=0, allow_inf_nan=False)]
MOST_LAYERS = 1000  # that a card may name


class LayerOfCard(BaseModel):
    """What a layer answers to real clips: the mean and the standard deviation of each channel, and the dead ones."""

    mean: tuple[Finite, ...] = Field(min_length=1, max_length=LARGEST)
    spread: tuple[Spread, ...] = Field(min_length=1, max_length=LARGEST)
    dead: tuple[int, ...] = Field((), max_length=LARGEST)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(self.spread) != len(self.mean) or not all(0 <= number < len(self.mean) for number in self.dead):
            raise ValueError("spread and dead are of the channels that mean has")
        return self

    @property
    def units(self) -> LayerUnits:
        dead = torch.zeros(len(self.mean), dtype=torch.bool)
        dead[list(self.dead)] = True
        return LayerUnits(torch.tensor(self.mean), torch.tensor(self.spread), dead)


class CardSettings(ClassesOfCard):
    """The settings of the card of a recogniser: samples a second, and samples of the clips that it was evaluated on.

    layers: by name and depth; none: the model cannot be sonified. mean_mel: of the log-mels of real clips.
    """

    rate: int = Field(ge=1000, le=192_000)
    samples: int = Field(ge=1, le=60 * 192_000)
    layers: dict[str, LayerOfCard] = Field({}, max_length=MOST_LAYERS)
    mean_mel: tuple[Finite, ...] = Field((), max_length=LARGEST)


class SoundClassification(Endpoint):
    """A loaded recogniser."""

    task: ClassVar[str] = "sound_classification"
    actions: ClassVar[tuple[str, ...]] = ("infer", "sonify")
    panel: ClassVar[str] = "sounds"

    def __init__(self, card: ModelCard, network: nn.Module, settings: ServeSettings, device: torch.device) -> None:
        super().__init__(card, network, settings, device)
        parsed = card_settings(card, CardSettings)
        self.classes, self.samples, self.rate = parsed.classes, parsed.samples, parsed.rate
        if len(card.inputs) != 1 or (card.inputs[0].name, card.inputs[0].shape) != (SOUNDS, (-1, -1)):
            raise ModelError(f"model {card.name!r}: a recogniser has one input {SOUNDS!r}, FP32 (-1, -1)")
        self.shortest = network.shortest if isinstance(network, SoundNetwork) else 1
        if isinstance(network, SoundNetwork) and network.rate != parsed.rate:
            raise unusable(card, f"settings.rate is {parsed.rate}, but the network expects {network.rate}")
        self.upload = SoundUpload(SOUNDS, parsed.rate, parsed.samples, settings.limits.sound_seconds)
        self._most = round(settings.limits.sound_seconds * parsed.rate)
        self.network.requires_grad_(False)
        with self._trial(f"sounds of {self.samples} samples") as counter:
            logits = self.network(torch.zeros(1, self.samples, device=self.device))
        check_logits(card, logits, len(self.classes))
        self._macs_of_sample = counter.total / self.samples
        self._listener = self._listening(network, parsed) if parsed.layers else None

    @staticmethod
    def outputs_of(card: ModelCard) -> tuple[TensorSpec, ...]:
        return class_scores(card)

    @staticmethod
    def example_for(card: ModelCard) -> Example | None:
        return Example("outputs=prediction", "sound.wav", "audio/wav")

    @classmethod
    def actions_of(cls, card: ModelCard) -> tuple[str, ...]:
        return cls.actions if card.settings.get("layers") else ("infer",)

    @staticmethod
    def sonification_of(card: ModelCard, limits: Sonification) -> Mapping[str, Any]:
        """The layers as the card has them: whether the network has them as well is known when it is loaded."""
        layers = card_settings(card, CardSettings).layers
        return described({name: len(layer.mean) for name, layer in layers.items()}, limits)

    def prepare(self, inputs: Mapping[str, Array], parameters: Mapping[str, Scalar], form: Form = TENSORS) -> Work:
        check_parameters(parameters, ())
        sounds = inputs[SOUNDS]
        warning = self._check_sounds(sounds)
        rows, samples = sounds.shape
        gmacs = rows * samples * self._macs_of_sample / 1e9
        if gmacs > self._limits.gmacs:
            most = f"{self._limits.gmacs:,.0f} billion multiplications (limits.gmacs)"
            raise InputError(
                f"input {SOUNDS!r} must take at most {most}; it takes {gmacs:,.0f}", "send fewer or shorter"
            )
        file = rendering(form, rows, self.rate, lambda answer: sounds[0])
        return Work(sounds, samples, None, gmacs, class_values(rows, self.classes), warning, file)

    def compute(self, works: Sequence[Work], stopped: Stopped) -> list[Answer]:
        """Recognise the sounds of all works, which have the same length."""
        if stopped():
            raise Abandoned
        sounds = torch.from_numpy(np.concatenate([work.inputs for work in works]))
        with torch.no_grad():
            logits = self.network(sounds.to(self.device)).float().cpu()
        if not bool(logits.isfinite().all()):
            if len(works) > 1:
                raise FloatingPointError("the logits are not finite")  # so each work is computed again, alone
            raise ModelError(f"model {self.card.name!r} answers NaN or infinite logits")
        outputs = {
            "logits": logits.numpy(),
            "probabilities": logits.softmax(1).numpy(),
            "prediction": logits.argmax(1).numpy(),
        }
        return split(outputs, works)

    def prepare_sonification(self, request: InferRequest, form: Form, limits: Sonification) -> AttackWork:
        assert self._listener is not None  # else it is not offered
        return prepare(self._listener, request, form, limits, self._check_sounds)

    def _check_sounds(self, sounds: Array) -> str:
        """InputError unless they are sounds as the model takes them. Returns a warning about them, or nothing."""
        self._check_rows(SOUNDS, sounds)
        samples = sounds.shape[1]
        if not self.shortest <= samples <= self._most:
            raise InputError(
                f"input {SOUNDS!r} must have {self.shortest:,} to {self._most:,} samples; it has {samples:,}"
            )
        if (largest := float(np.abs(sounds).max())) > 1:
            hint = "divide by 32768" if 1 < largest <= 32768 else "samples are not scaled"
            raise InputError(
                f"input {SOUNDS!r}: samples must be in [-1, 1]; the largest magnitude is {largest:g}", hint
            )
        if clipped_share(torch.tensor(sounds)) > CLIPPED:
            return f"input {SOUNDS!r} is clipped: its peaks are cut off flat"
        return ""

    def _listening(self, network: nn.Module, parsed: CardSettings) -> Listener:
        """The network with what its card says of its layers. ModelError if that is not of this network."""
        if not isinstance(network, SoundNetwork):
            raise unusable(self.card, "settings.layers is of a network that shows its layers, and this one does not")
        said = {name: len(layer.mean) for name, layer in parsed.layers.items()}
        if said != (channels := channels_of(network, self.samples, self.device)):
            raise unusable(self.card, f"settings.layers must be {channels}, the network's with their channels")
        if len(parsed.mean_mel) != (bands := log_mel_of(network).bands):
            raise unusable(self.card, f"settings.mean_mel must have {bands} numbers; it has {len(parsed.mean_mel)}")
        layers = {name: layer.units for name, layer in parsed.layers.items()}
        mean_mel = torch.tensor(parsed.mean_mel)
        return Listener(self.card.name, network, self.device, self.classes, layers, mean_mel, self._macs_of_sample)
