"""Which words a sound holds: Moonshine, a network of today, and Sphinx, an independent recogniser of another kind.

Jeffries et al. 2024 (arXiv 2410.15608); Huggins-Daines et al. 2006, "PocketSphinx".
"""

import importlib.util
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from jobs.common.audio.judges.onnx import session
from jobs.common.audio.networks.pretrained.moonshine import HEADS, SHORTEST, WIDTH
from jobs.common.data.packages import MOONSHINE
from service.errors import FieldError, InputError

RATE = 16_000  # Hz
START, END = 1, 2  # tokens
TOKENS_PER_SECOND = 6.5  # more than anybody says: what goes on longer repeats itself (their section 5)
SAMPLES_OF_FRAME = 384
SPACE = "\u2581"  # how a token begins that begins a word


class MoonshineJudge:
    """InputError on making it if onnxruntime or the weights are not there."""

    def __init__(self, folder: Path | None = None) -> None:
        judge = "the judge of words (Moonshine)"
        self._encoder = session(MOONSHINE.path("encoder_model.ort", folder), judge)
        self._decoder = session(MOONSHINE.path("decoder_model_merged.ort", folder), judge)
        self._tokens = tokens(MOONSHINE.path("tokenizer.bin", folder).read_bytes())

    def transcription(self, sound: Tensor) -> str:
        """The words of a sound, float (samples,) at 16 kHz."""
        return self.words(self.features(sound), len(sound) / RATE)

    def features(self, sound: Tensor) -> np.ndarray:
        """What the encoder makes of a sound: float32 (1, frames, 288). FieldError if the sound is too short."""
        if len(sound) < SHORTEST:
            raise FieldError("sound", f"have at least {SHORTEST} samples, a frame of Moonshine", len(sound))
        samples = sound.numpy().astype(np.float32)[None]
        mask = np.ones_like(samples, np.int64)  # all samples
        features: np.ndarray = self._encoder.run(None, {"input_values": samples, "attention_mask": mask})[0]
        return features

    def words(self, features: np.ndarray, seconds: float) -> str:
        """The words that the decoder reads, the likeliest token each time, from what an encoder made of a sound."""
        past = {
            each.name: np.zeros((1, HEADS, 0, WIDTH // HEADS), np.float32)
            for each in self._decoder.get_inputs()
            if each.name.startswith("past_key_values")
        }
        mask = np.ones((1, features.shape[1] * SAMPLES_OF_FRAME), np.int64)
        said: list[int] = [START]
        for step in range(int(seconds * TOKENS_PER_SECOND) + 1):
            inputs: dict[str, Any] = {
                "input_ids": np.array([said[-1:]], np.int64),
                "encoder_hidden_states": features,
                "encoder_attention_mask": mask,
                "use_cache_branch": np.array([step > 0]),
                **past,
            }
            logits, *present = self._decoder.run(None, inputs)
            said.append(int(logits[0, -1].argmax()))
            if said[-1] == END:
                break
            for name, value in zip(past, present, strict=True):
                if step == 0 or "decoder" in name:  # what was read of the sound stays
                    past[name] = value
        return text(self._tokens[token] for token in said[1:] if token != END)


def tokens(data: bytes) -> list[bytes]:
    """The tokens of a tokenizer file by their number: each after its length, of one byte or, from 128 on, of two."""
    listed, place = [], 0
    while place < len(data):
        length, place = data[place], place + 1
        if length >= 128:
            length, place = length - 128 + 128 * data[place], place + 1
        listed.append(data[place : place + length])
        place += length
    return listed


class SphinxJudge:
    """InputError on making it if pocketsphinx is not installed."""

    def __init__(self, folder: Path | None = None) -> None:
        """folder: of data, which it does not need: its model is part of the package."""
        if importlib.util.find_spec("pocketsphinx") is None:
            raise InputError("the judge of words (Sphinx) needs the package pocketsphinx", "pip install 'assay[audio]'")
        from pocketsphinx import Decoder

        self._decoder = Decoder(samprate=RATE, loglevel="FATAL")

    def transcription(self, sound: Tensor) -> str:
        """The words of a sound, float (samples,) at 16 kHz; empty if it hears none."""
        samples = (sound.clamp(-1, 1) * 32767).round().numpy().astype("<i2")
        self._decoder.start_utt()
        self._decoder.process_raw(samples.tobytes(), full_utt=True)
        self._decoder.end_utt()
        hypothesis = self._decoder.hyp()
        return hypothesis.hypstr if hypothesis else ""


def text(said: Iterable[bytes]) -> str:
    """Tokens as words."""
    return b"".join(said).decode(errors="replace").replace(SPACE, " ").strip()
