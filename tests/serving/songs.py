"""A small database of tunes, as a study publishes it."""

from functools import cache
from typing import Any

import numpy as np
from torch import Tensor

from jobs.common.audio.fingerprints.card import database_card
from jobs.common.audio.fingerprints.database import Database
from jobs.common.audio.fingerprints.fingerprint import Fingerprint, FingerprintParams
from jobs.common.data.music import MusicParams
from jobs.common.data.music.base import Songs
from jobs.common.data.music.excerpts import excerpts
from service.models import CardDraft, ModelCard, publish
from service.store import Folder

RATE = 8_000
SAMPLES = 2 * RATE
"""of the excerpts that calibrate it"""


@cache
def songs() -> tuple[Songs, Songs]:
    """Those in the database, and those that are not."""
    return MusicParams(rate=RATE, seconds=6, enrolled=5, others=5).load()


@cache
def database() -> Database:
    enrolled, others = songs()
    made = Database.built(Fingerprint(FingerprintParams(rate=RATE)), enrolled.sounds)
    made.calibrate(list(excerpts(others, 2.0, each=4, seed=1).sounds), 0.05)
    return made


def draft(**changes: Any) -> CardDraft:
    made = database_card(
        "copyright_attack",
        database(),
        songs()[0].names,
        samples=SAMPLES,
        false_alarms=0.05,
        metrics={},
        description="five tunes",
    )
    return made.model_copy(update=changes)


def put_songs(store: Folder, name: str) -> ModelCard:
    """Publish the next version of the database."""
    return publish(store, name, database().state_dict(), draft())


def excerpt(song: int, start: int, samples: int = SAMPLES) -> Tensor:
    """A part of a song in the database: (samples,)."""
    return songs()[0].sounds[song][start : start + samples]


def stacked(*sounds: Tensor) -> np.ndarray:
    """Sounds as an input: FP32 (rows, samples)."""
    return np.stack([sound.numpy() for sound in sounds])
