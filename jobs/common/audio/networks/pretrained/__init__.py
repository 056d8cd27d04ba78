"""Networks that others have trained, rebuilt in torch from the files of their packages, which `make data` fetches."""

from collections.abc import Callable

from jobs.common.audio.networks.base import SoundNetwork

PRETRAINED: dict[str, str | Callable[..., SoundNetwork]] = {
    "moonshine_tiny": "jobs.common.audio.networks.pretrained.moonshine:load",
    "crepe_tiny": "jobs.common.audio.networks.pretrained.crepe:load",
    "silero_vad": "jobs.common.audio.networks.pretrained.silero:load",
    "musicnn_mtt_vgg": "jobs.common.audio.networks.pretrained.musicnn:load",
}
