"""Answers of networks that listen as files: a sound as a WAV, or its spectrogram as a PNG."""

from collections.abc import Callable

import torch

from jobs.common.audio.files import wav
from service.errors import InputError
from service.report.spectrogram import spectrogram_png
from serving.http.messages import Form
from serving.http.tensors import Array
from serving.http.uploads import PNG_MEDIA, WAV_MEDIA
from serving.kinds.work import Answer, Rendering


def rendering(form: Form, sounds: int, rate: int, sound: Callable[[Answer], Array]) -> Rendering | None:
    """How the answer becomes a file, where the request accepts one. InputError if there is not one sound.

    sounds: how many there are. rate: samples a second. sound: that of an answer, (samples,).
    """
    if not (form.png or form.wav):
        return None
    if sounds != 1:
        raise InputError(f"a PNG or a WAV is the answer for one sound, not for {sounds}; ask for application/json")
    if form.png:
        return Rendering(PNG_MEDIA, lambda answer: spectrogram_png(sound(answer), rate))
    return Rendering(WAV_MEDIA, lambda answer: wav(torch.from_numpy(sound(answer)), rate))
