"""Recognisers of sounds as endpoints: samples in [-1, 1] or an uploaded sound in; logits, probabilities, prediction.

They take no parameters. The names of the classes and the rate of the samples are in the model's metadata. An uploaded
sound of another rate is brought to the model's, several channels to their mean, and its length to that of the clips
which the model was evaluated on.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import nn

from jobs.common.audio.networks.base import SoundNetwork
from service.errors import InputError, ModelError
from service.models import ModelCard, TensorSpec
from serving.http.messages import TENSORS, Form
from serving.http.protocol import Scalar, check_parameters
from serving.http.settings import ServeSettings
from serving.http.sound_upload import SoundUpload
from serving.http.tensors import Array
from serving.kinds.base import Endpoint, Example, card_settings, split, unusable
from serving.kinds.images import ClassesOfCard, check_logits, class_scores
from serving.kinds.work import Abandoned, Answer, Stopped, Work

SOUNDS = "sounds"


class CardSettings(ClassesOfCard):
    """The settings of the card of a recogniser: samples a second, and samples of the clips that it was evaluated on."""

    rate: int = Field(ge=1000, le=192_000)
    samples: int = Field(ge=1, le=60 * 192_000)


class SoundClassification(Endpoint):
    """A loaded recogniser."""

    task: ClassVar[str] = "sound_classification"
    actions: ClassVar[tuple[str, ...]] = ("infer",)
    panel: ClassVar[str] = "sounds"

    def __init__(self, card: ModelCard, network: nn.Module, settings: ServeSettings, device: torch.device) -> None:
        super().__init__(card, network, settings, device)
        parsed = card_settings(card, CardSettings)
        self.classes, self.samples = parsed.classes, parsed.samples
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

    @staticmethod
    def outputs_of(card: ModelCard) -> tuple[TensorSpec, ...]:
        return class_scores(card)

    @staticmethod
    def example_for(card: ModelCard) -> Example | None:
        return Example("outputs=prediction", "sound.wav", "audio/wav")

    def prepare(self, inputs: Mapping[str, Array], parameters: Mapping[str, Scalar], form: Form = TENSORS) -> Work:
        check_parameters(parameters, ())
        sounds = inputs[SOUNDS]
        self._check_rows(SOUNDS, sounds)
        rows, samples = sounds.shape
        if not self.shortest <= samples <= self._most:
            raise InputError(
                f"input {SOUNDS!r} must have {self.shortest:,} to {self._most:,} samples; it has {samples:,}"
            )
        if (largest := float(np.abs(sounds).max())) > 1:
            hint = "divide by 32768" if 1 < largest <= 32768 else "samples are not scaled"
            raise InputError(
                f"input {SOUNDS!r}: samples must be in [-1, 1]; the largest magnitude is {largest:g}", hint
            )
        gmacs = rows * samples * self._macs_of_sample / 1e9
        if gmacs > self._limits.gmacs:
            most = f"{self._limits.gmacs:,.0f} billion multiplications (limits.gmacs)"
            raise InputError(
                f"input {SOUNDS!r} must take at most {most}; it takes {gmacs:,.0f}", "send fewer or shorter"
            )
        return Work(sounds, samples, None, gmacs)

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
